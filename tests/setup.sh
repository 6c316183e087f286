#!/bin/sh
# What building needs beside Rust: a C compiler with the headers of the C library (gcc, libc6-dev), for the embedded
# SQLite, Lua and zstd, and for the cryptography of TLS; and make, for the allocator. No C++ compiler. With the argument
# "test" also what the tests need: the programs of a PostgreSQL server (postgresql), of PgBouncer (pgbouncer) and of
# Redis (redis-server) and of Prometheus (prometheus), Chromium with its driver and a font for the status page (chromium,
# chromium-driver, fonts-dejavu-core), the shell of SQLite for the guides (sqlite3), a shell, and Python for one example
# (python3-minimal). The tests run servers of their own; the system's are neither started nor touched. With "check" what the
# lints of Lua need (lua-check). With "instructions" what counts them and checks results (valgrind, util-linux for taskset,
# python3). With "bench" what forebay is measured against (python3, and python3-pip to fetch DuckDB). With "kafka" what the
# cargo feature kafka needs: a C++ compiler, for librdkafka, and OpenSSL (g++, libssl-dev, pkg-config); and Python with pip
# (python3-pip) for a broker that its tests fetch.
set -eu

if command -v cargo >/dev/null 2>&1; then :; else
    echo "forebay needs Rust: see https://rustup.rs" >&2
    exit 1
fi

missing=""
# A compiler may be there without the headers: Debian only recommends them with it.
printf '#include <stdio.h>\nint main(void) { return puts("") < 0; }\n' | cc -x c -o /dev/null - >/dev/null 2>&1 ||
    missing="gcc libc6-dev"
command -v make >/dev/null 2>&1 || missing="$missing make"
if [ "${1:-}" = test ]; then
    has_postgres=""
    for initdb in "$(command -v initdb || true)" "$(pg_config --bindir 2>/dev/null || true)/initdb" /usr/lib/postgresql/*/bin/initdb; do
        if [ -x "$initdb" ]; then has_postgres=yes; fi
    done
    [ -n "$has_postgres" ] || missing="$missing postgresql"
    command -v pgbouncer >/dev/null 2>&1 || [ -x /usr/sbin/pgbouncer ] || missing="$missing pgbouncer"
    command -v redis-server >/dev/null 2>&1 || missing="$missing redis-server"
    command -v promtool >/dev/null 2>&1 || missing="$missing prometheus"
    command -v sqlite3 >/dev/null 2>&1 || missing="$missing sqlite3"
    command -v chromedriver >/dev/null 2>&1 || missing="$missing chromium chromium-driver fonts-dejavu-core"
    command -v python3 >/dev/null 2>&1 || missing="$missing python3-minimal"
fi
if [ "${1:-}" = check ]; then
    command -v luacheck >/dev/null 2>&1 || missing="$missing lua-check"
fi
if [ "${1:-}" = instructions ] || [ "${1:-}" = bench ]; then
    python3 -c 'import hashlib, json, sqlite3' >/dev/null 2>&1 || missing="$missing python3"
fi
if [ "${1:-}" = instructions ]; then
    command -v valgrind >/dev/null 2>&1 || missing="$missing valgrind"
    command -v taskset >/dev/null 2>&1 || missing="$missing util-linux"
fi
if [ "${1:-}" = bench ]; then
    # Without it DuckDB is left out.
    python3 -m pip --version >/dev/null 2>&1 || missing="$missing python3-pip"
fi
if [ "${1:-}" = kafka ]; then
    command -v c++ >/dev/null 2>&1 || missing="$missing g++"
    command -v pkg-config >/dev/null 2>&1 || missing="$missing pkg-config"
    pkg-config --exists openssl 2>/dev/null || missing="$missing libssl-dev"
    python3 -m pip --version >/dev/null 2>&1 || missing="$missing python3-pip"
fi
[ -n "$missing" ] || exit 0

if command -v apt-get >/dev/null 2>&1 && [ "$(id -u)" = 0 ]; then
    echo "not found here, installing the Debian packages:$(printf ' %s' $missing)" >&2
    if [ -z "${missing##*postgresql*}" ]; then
        # The package would otherwise make a cluster of the system's and start it.
        mkdir -p /etc/postgresql-common/createcluster.d
        echo "create_main_cluster = false" >/etc/postgresql-common/createcluster.d/forebay-tests.conf
    fi
    has_own_policy=""
    if [ ! -e /usr/sbin/policy-rc.d ]; then
        # The packages would otherwise start servers of the system's.
        has_own_policy=yes
        trap 'rm -f /usr/sbin/policy-rc.d' EXIT
        printf '#!/bin/sh\nexit 101\n' >/usr/sbin/policy-rc.d
        chmod 755 /usr/sbin/policy-rc.d
    fi
    apt-get update -qq
    # shellcheck disable=SC2086
    DEBIAN_FRONTEND=noninteractive apt-get install -y -qq --no-install-recommends $missing >/dev/null
    if [ -n "$has_own_policy" ] && command -v systemctl >/dev/null 2>&1; then
        for service in redis-server prometheus; do
            case " $missing " in
            *" $service "*) systemctl disable -q "$service" >/dev/null 2>&1 || true ;;
            esac
        done
    fi
else
    echo "not found here: $missing (names of Debian packages; elsewhere: a C compiler called cc, make," >&2
    echo "PostgreSQL's server programs initdb, pg_ctl and postgres, pgbouncer, redis-server, prometheus with promtool," >&2
    echo "chromedriver with its browser, sqlite3, valgrind, Python with pip). Install them, then run this again." >&2
    exit 1
fi
