#!/bin/sh
# Checks the combinations of cargo features that make sense, without warnings: the library with each alone, with the pairs
# that a small program takes, with all but one; the program with one store. They share one target folder, so each
# dependency is built once. Then the oldest Rust that Cargo.toml promises.
set -eu
cd "$(dirname "$0")/.."

# `-D warnings` is for this crate alone: as RUSTFLAGS it would build the dependencies anew.
combination() {
    echo "features: ${2:-none} ($1)"
    # shellcheck disable=SC2086
    ${CARGO:-cargo} $toolchain rustc --quiet --profile check $1 --no-default-features --features "$2" -- -D warnings
}

toolchain=""
for features in "" lua sqlite postgres redis serve lua,sqlite sqlite,redis \
    lua,sqlite,postgres lua,sqlite,redis lua,postgres,redis sqlite,postgres,redis lua,sqlite,postgres,redis lua,sqlite,serve; do
    combination --lib "$features"
done
for features in cli cli,lua,sqlite cli,lua,sqlite,serve; do
    combination "--bin forebay" "$features"
done

# With the argument "kafka" that feature too: librdkafka takes minutes to build, and more than the others need.
if [ "${1:-}" = kafka ]; then
    for features in kafka cli,lua,sqlite,postgres,redis,kafka; do
        combination --lib "$features"
    done
fi

# What takes the terminal crates in without the feature "cli" would be noticed by nobody.
if ${CARGO:-cargo} tree --quiet --edges normal --no-default-features --features lua,sqlite,postgres,redis --prefix none |
    grep -E '^(clap|clap_complete|clap_mangen|comfy-table|indicatif|signal-hook|terminal_size|tracing-subscriber|tikv-jemallocator) '; then
    echo "the library needs what only the program should (above)" >&2
    exit 1
fi

oldest=$(sed -n 's/^rust-version = "\(.*\)"$/\1/p' Cargo.toml)
used=$(rustc --version | sed 's/^rustc \([0-9]*\.[0-9]*\).*/\1/')
if [ "$used" = "$oldest" ]; then
    echo "rust-version: $oldest, which is what all of this was checked with"
elif rustup toolchain list 2>/dev/null | grep -q "^$oldest"; then
    toolchain="+$(rustup toolchain list | sed -n "s/^\($oldest[^ ]*\).*/\1/p" | head -n 1)"
    combination --lib lua,sqlite,postgres,redis
    combination "--bin forebay" cli,lua,sqlite,postgres,redis
    echo "rust-version: $oldest, checked with $toolchain"
else
    # clippy knows since when what std has is there (incompatible_msrv), and reads rust-version itself.
    echo "rust-version: $oldest is not installed, so only clippy has looked at it: rustup toolchain install $oldest" >&2
fi
