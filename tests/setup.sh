#!/bin/sh
# What building and testing need beside Rust: a C compiler, for the embedded SQLite, Lua and zstd.
set -eu

if command -v cargo >/dev/null 2>&1; then :; else
    echo "forebay needs Rust: see https://rustup.rs" >&2
    exit 1
fi

if command -v cc >/dev/null 2>&1; then
    exit 0
fi

if command -v apt-get >/dev/null 2>&1 && [ "$(id -u)" = 0 ]; then
    echo "no C compiler found: installing the Debian packages gcc and libc6-dev" >&2
    apt-get update -qq
    DEBIAN_FRONTEND=noninteractive apt-get install -y -qq --no-install-recommends gcc libc6-dev >/dev/null
else
    echo "forebay needs a C compiler called cc: install gcc or clang (Debian: apt-get install gcc libc6-dev)" >&2
    exit 1
fi
