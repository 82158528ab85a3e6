#!/usr/bin/env bash
# Whether the kernels have become slower than golden/gates/ says, one line of result each.
#
#   ci/performance-regression-check.sh                    what can be compared here
#   ci/performance-regression-check.sh --require-counts   a kernel set that cannot be counted is a failure too
#
# Works from a fresh clone; it builds what it needs. Instructions are exact and the same on every machine, but want valgrind
# (apt-get install valgrind) and the compiler of rust-toolchain.toml. Ratios are of wall time, and bind on the processor that
# they were blessed on; on another one only their floors hold.
# Exit codes: 0 nothing is slower, 1 something is, 2 wrong usage, 4 nothing could be compared.
set -euo pipefail
cd "$(dirname "$0")/.."
export CARGO_TERM_COLOR=never

require=()
while [ $# -gt 0 ]; do
    case $1 in
        --require-counts) require=(--require) ;;
        *)
            sed -n '2,10s/^# \{0,1\}//p' "$0"
            exit 2
            ;;
    esac
    shift
done

green=0
red=0
unavailable=0

# step NAME COMMAND...: exit code 4 is `unavailable`, every other but 0 is red.
step() {
    local name=$1 start=$SECONDS code=0
    shift
    echo "=== $name"
    "$@" || code=$?
    case $code in
        0)
            green=$((green + 1))
            echo "--- $name: ok ($((SECONDS - start)) s)"
            ;;
        4)
            unavailable=$((unavailable + 1))
            echo "--- $name: unavailable ($((SECONDS - start)) s)"
            ;;
        *)
            red=$((red + 1))
            echo "--- $name: RED, exit code $code ($((SECONDS - start)) s)"
            ;;
    esac
}

counts() {
    local code=0
    cargo xtask gate "${require[@]:+${require[@]}}" || code=$?
    if [ "$code" = 4 ] && [ ${#require[@]} -gt 0 ]; then
        echo "--require-counts: what is unavailable is a failure"
        code=1
    fi
    return "$code"
}

# As `cargo xtask gate` would, so that its time is seen. A driver that cannot be built leaves nothing to compare.
echo "=== build"
start=$SECONDS
cargo build --release --quiet -p gate-driver
echo "--- build: ($((SECONDS - start)) s)"
step "instructions" counts
step "paired ratios" cargo xtask gate --paired

echo "performance: $green green, $red RED, $unavailable unavailable"
if [ "$red" -gt 0 ]; then
    exit 1
fi
if [ "$green" -eq 0 ]; then
    exit 4
fi
