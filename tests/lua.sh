#!/bin/sh
# Checks all Lua of the repository: its form by stylua, its names by luacheck. Settings: .stylua.toml, .luacheckrc.
#
#   tests/lua.sh        checks
#   tests/lua.sh fix    formats
#
# A tool that is not there is said, and passed by; with FOREBAY_LUA_TOOLS=required that is an error.
set -eu
cd "$(dirname "$0")/.."

failed=0
lacking() {
    echo "tests/lua.sh: $1 is not installed; $2" >&2
    if [ "${FOREBAY_LUA_TOOLS:-}" = required ]; then failed=1; fi
}

if command -v stylua >/dev/null; then
    if [ "${1:-}" = fix ]; then stylua src examples; fi
    stylua --check src examples || failed=1
else
    lacking stylua "cargo install stylua --version 2.6.0 --features lua54"
fi
if command -v luacheck >/dev/null; then
    luacheck --quiet src examples || failed=1
else
    lacking luacheck "Debian package lua-check"
fi
exit $failed
