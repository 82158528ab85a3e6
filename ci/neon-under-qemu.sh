#!/usr/bin/env bash
# The kernel sets for aarch64, compiled here and run under emulation: a line of result for each processor and test.
#
#   ci/neon-under-qemu.sh [--rustc PATH] [--linker PATH] [--qemu PATH] [--cpu NAME]... [TEST]...
#
#   --rustc    a compiler with the standard library of aarch64-unknown-linux-gnu (default: rustc)
#   --linker   a C compiler for aarch64 (default: aarch64-linux-gnu-gcc); its C library is what the tests run with
#   --qemu     the user-mode emulator (default: qemu-aarch64-static, or qemu-aarch64)
#   --cpu      processors of the emulator (default: max, which has the dot product, and cortex-a72, which has not)
#   TEST       files of kernels/tests/kernels (default: all tests, and those inside the crate)
#
# Emulation proves bits, not speed. The test `digest` prints which sets ran and holds them against the number that the sets of
# other architectures have.
# Exit codes: 0 all is green, 1 something is red, 2 wrong usage, 4 a tool is missing.
set -euo pipefail
cd "$(dirname "$0")/.."
export CARGO_TERM_COLOR=never

usage() {
    sed -n '2,15s/^# \{0,1\}//p' "$0"
    exit 2
}

target=aarch64-unknown-linux-gnu
rustc=rustc
linker=aarch64-linux-gnu-gcc
qemu=
cpus=()
tests=()
while [ $# -gt 0 ]; do
    case $1 in
        --rustc | --linker | --qemu | --cpu)
            [ $# -ge 2 ] || usage
            ;;&
        --rustc) rustc=$2 ;;
        --linker) linker=$2 ;;
        --qemu) qemu=$2 ;;
        --cpu) cpus+=("$2") ;;
        -*) usage ;;
        *)
            tests+=("$1")
            shift
            continue
            ;;
    esac
    shift 2
done
[ ${#cpus[@]} -gt 0 ] || cpus=(max cortex-a72)
[ -n "$qemu" ] || qemu=$(command -v qemu-aarch64-static || command -v qemu-aarch64 || true)

# unavailable REASON COMMAND
unavailable() {
    echo "neon: unavailable: $1"
    echo "  to fix it: $2"
    exit 4
}

[ -n "$qemu" ] && command -v "$qemu" > /dev/null ||
    unavailable "no user-mode emulator of aarch64 (${qemu:-qemu-aarch64-static})" "apt-get install qemu-user-static, or --qemu PATH"
command -v "$linker" > /dev/null ||
    unavailable "no C compiler for aarch64 ($linker)" "apt-get install gcc-aarch64-linux-gnu libc6-dev-arm64-cross, or --linker PATH"
loader=$("$linker" -print-file-name=ld-linux-aarch64.so.1)
[ -e "$loader" ] ||
    unavailable "$linker has no C library ($loader)" "apt-get install libc6-dev-arm64-cross"
command -v "$rustc" > /dev/null || unavailable "no $rustc" "install Rust, or --rustc PATH"
libraries=$("$rustc" --print target-libdir --target "$target")
compgen -G "$libraries/libstd-*.rlib" > /dev/null ||
    unavailable "$rustc has no standard library of $target" "rustup target add $target, or --rustc PATH"

rustc=$(command -v "$rustc")
echo "neon: $("$rustc" -V), $("$linker" -dumpfullversion) of $linker, $("$qemu" --version | head -n 1)"
export RUSTC=$rustc
export CARGO_TARGET_AARCH64_UNKNOWN_LINUX_GNU_LINKER=$linker
# Apart from the build of the host, which may be of another compiler.
export CARGO_TARGET_DIR=${CARGO_TARGET_DIR:-target}/neon
prefix=$(dirname "$(dirname "$loader")")

if [ ${#tests[@]} -eq 0 ]; then
    which=(--lib --tests --no-fail-fast)
else
    which=(--test kernels -- "${tests[@]/%/::}")
fi

# Which sets this processor has, and their number.
sets() {
    local lines
    lines=$(cargo test --quiet --package bitnet-kernels --target "$target" --test digest -- --nocapture) || return 1
    grep -E '^(neon|scalar)|kernel set `neon' <<< "$lines" || true
    grep -q '^neon: 0x' <<< "$lines"
}

red=0
for cpu in "${cpus[@]}"; do
    export CARGO_TARGET_AARCH64_UNKNOWN_LINUX_GNU_RUNNER="$qemu -cpu $cpu -L $prefix"
    start=$SECONDS
    echo "=== $cpu"
    if cargo test --quiet --package bitnet-kernels --target "$target" "${which[@]}" && sets; then
        echo "--- $cpu: ok ($((SECONDS - start)) s)"
    else
        echo "--- $cpu: RED ($((SECONDS - start)) s)"
        red=1
    fi
done
exit "$red"
