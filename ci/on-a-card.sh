#!/usr/bin/env bash
# Everything that a card is asked, in one run of eight minutes.
#
#   ci/on-a-card.sh prepare            here: builds the programs and packs them into target/card/programs.tar.gz
#   ci/on-a-card.sh run [OUT]          on the machine with the card: no Rust, no network; results go to OUT
#
# `prepare` wants what building wants. `run` wants the checkout, the packed programs at their place, a driver and NVRTC
# (the CUDA toolkit has it; BITNET_NVRTC names another). Results are for golden/records/. CARD_DEVICE=cuda-emu runs all of it
# on the emulation, with small shapes: it shows that the script works and nothing about a card.
#
# Exit codes of `run`: 0 every step passed, 1 a step failed, 4 there is no card or no NVRTC.
set -euo pipefail
cd "$(dirname "$0")/.."
programs=target/card/programs.tar.gz
profile=${CARD_PROFILE:-release}

# The path of the program that cargo builds with these arguments.
built() {
    cargo "$@" --profile "$profile" --message-format=json-render-diagnostics |
        sed -n 's/.*"executable":"\([^"]*\)".*/\1/p' | tail -n 1
}

prepare() {
    rm -rf target/card
    mkdir -p target/card/bin
    cp "$(built build -p xtask --bin xtask)" target/card/bin/xtask
    cp "$(built test -p bitnet-harness --test matrix --no-run)" target/card/bin/matrix
    cp "$(built test -p bitnet-harness --bench cuda --no-run)" target/card/bin/bench-cuda
    strip target/card/bin/*
    tar -C target/card -czf "$programs" bin
    rm -r target/card/bin
    ls -l "$programs"
}

# One line a step in summary.txt, its output in NAME.txt.
failed=0
step() {
    local name=$1 limit=$2 code=0 start=$SECONDS
    shift 2
    timeout "$limit" "$@" >"$out/$name.txt" 2>&1 || code=$?
    [ "$code" = 0 ] || failed=1
    echo "$name: exit $code after $((SECONDS - start)) s" | tee -a "$out/summary.txt"
}

find_nvrtc() {
    [ -n "${BITNET_NVRTC:-}" ] && return
    local found
    found=$(ls /usr/local/cuda*/lib64/libnvrtc.so.1? /usr/local/cuda*/targets/*/lib/libnvrtc.so.1? 2>/dev/null | tail -n 1 || true)
    if [ -z "$found" ]; then
        found=$(python3 -c 'import glob, site
paths = [p for s in site.getsitepackages() for p in glob.glob(s + "/nvidia/**/libnvrtc.so.1?", recursive=True)]
print(paths[-1] if paths else "")' 2>/dev/null || true)
    fi
    [ -z "$found" ] || export BITNET_NVRTC=$found
}

run() {
    out=$(mkdir -p "${1:-target/card/results}" && cd "${1:-target/card/results}" && pwd)
    local device=${CARD_DEVICE:-cuda} small=() bin
    [ -f "$programs" ] || { echo "$programs is not here: ci/on-a-card.sh prepare makes it"; exit 1; }
    [ "$device" != cuda-emu ] || small=(--small)
    work=$(mktemp -d)
    trap 'rm -rf "$work"' EXIT
    tar -C "$work" -xzf "$programs"
    bin=$work/bin
    export CARGO_MANIFEST_DIR=$PWD/harness CARGO_TARGET_DIR=$work/target CRITERION_HOME=$work/criterion
    export BITNET_BENCH_DEVICE=$device
    : >"$out/summary.txt"
    {
        git rev-parse HEAD 2>/dev/null || echo "no commit is known"
        nvidia-smi 2>&1 || true
    } >"$out/machine.txt"
    if [ "$device" != cuda-emu ]; then
        find_nvrtc
        nvidia-smi -L >/dev/null 2>&1 || { echo "unavailable: nvidia-smi finds no card"; exit 4; }
        [ -n "${BITNET_NVRTC:-}" ] || { echo "unavailable: no NVRTC; pip install nvidia-cuda-nvrtc and set BITNET_NVRTC"; exit 4; }
    fi

    # First whether it is right: the cells of the device, with and without overlapping launches.
    local overlap
    for overlap in 1 0; do
        BITNET_CUDA_OVERLAP=$overlap MATRIX_OUT=$work/matrix-$overlap \
            step "cells-overlap-$overlap" 90 "$bin/matrix" --device "$device" --require "$device" ${CARD_CELLS:-}
    done
    # Memory errors and races, on a tiny model. The emulation watches its own memory.
    if command -v compute-sanitizer >/dev/null && [ "$device" != cuda-emu ]; then
        local tool
        for tool in memcheck racecheck; do
            step "$tool" 60 compute-sanitizer --tool "$tool" --error-exitcode 1 "$bin/xtask" bench-gpu --device "$device" --small
        done
    else
        echo "memcheck, racecheck: unavailable: compute-sanitizer is not here, or there is no card" | tee -a "$out/summary.txt"
    fi
    # Then how fast.
    for overlap in 1 0; do
        BITNET_CUDA_OVERLAP=$overlap step "bench-gpu-overlap-$overlap" 90 \
            "$bin/xtask" bench-gpu --device "$device" "${small[@]}" --out "$out/bench-gpu-overlap-$overlap.json"
    done
    for overlap in 1 0; do
        BITNET_CUDA_OVERLAP=$overlap step "criterion-overlap-$overlap" 90 \
            "$bin/bench-cuda" --bench --noplot --warm-up-time 0.2 --measurement-time 0.5 --sample-size 10 ${CARD_BENCH:-}
    done
    cat "$out/summary.txt"
    return "$failed"
}

case ${1:-} in
prepare) prepare ;;
run) run "${2:-}" ;;
*) sed -n '2,12s/^# \{0,1\}//p' "$0"; exit 2 ;;
esac
