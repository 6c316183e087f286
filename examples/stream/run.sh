#!/bin/sh
# Orders over a Redis that is started for this alone, on a socket in a folder of its own, and is gone afterwards.
# FOREBAY names the program; the default is the one in the path.
set -eu

here=$(cd "$(dirname "$0")" && pwd)
forebay=${FOREBAY:-forebay}
for program in redis-server redis-cli; do
    command -v "$program" >/dev/null || {
        echo "not found: $program (the Debian packages redis-server and redis-tools)" >&2
        exit 1
    }
done

# They would replace the addresses of the example.
unset DATABASE_URL REDIS_URL

folder=$(mktemp -d)
server=""
end() {
    if [ -n "$server" ]; then
        kill "$server" 2>/dev/null || true
        wait "$server" 2>/dev/null || true
    fi
    rm -rf "$folder"
}
trap end EXIT
trap 'exit 130' INT TERM

socket=$folder/redis.sock
redis-server --port 0 --unixsocket "$socket" --save "" --appendonly no --dir "$folder" >"$folder/log" 2>&1 &
server=$!
tries=0
until redis-cli -s "$socket" ping >/dev/null 2>&1; do
    tries=$((tries + 1))
    if [ "$tries" -gt 100 ] || ! kill -0 "$server" 2>/dev/null; then
        echo "redis-server does not start:" >&2
        cat "$folder/log" >&2
        exit 1
    fi
    sleep 0.1
done

cp "$here/handlers.lua" "$folder"
sed "s|redis://localhost|redis+unix://$socket|" "$here/pipeline.toml" >"$folder/pipeline.toml"

"$here/produce.sh" 1000 -s "$socket"
"$forebay" --quiet run "$folder/pipeline.toml"
# The second run goes on behind the last entry of the first one.
"$here/produce.sh" 2000 -s "$socket"
"$forebay" run "$folder/pipeline.toml"
echo
"$forebay" latest --config "$folder/pipeline.toml" --table
echo
echo "entries left in the stream: $(redis-cli -s "$socket" xlen orders)"
