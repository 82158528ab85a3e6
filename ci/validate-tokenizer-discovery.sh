#!/usr/bin/env bash
# Everything that is promised of finding, fetching and reading tokenizers, one line of result each, and a count at the end.
#
#   ci/validate-tokenizer-discovery.sh                  what can run here
#   ci/validate-tokenizer-discovery.sh --require-all    what cannot run is a failure too
#   ci/validate-tokenizer-discovery.sh --only NAME      one of them (a part of its name)
#   ci/validate-tokenizer-discovery.sh --tested         without what `cargo test` runs too, where it has just run
#
# Works from a fresh clone: it builds what it needs (debug builds, as `cargo test` makes them) and keeps its files in the
# build folder. A check is a function; it passes if it returns 0. One that misses something calls `missing REASON COMMAND`.
set -euo pipefail
cd "$(dirname "$0")/.."
export CARGO_TERM_COLOR=never
# What the caller's shell says about hubs and caches must not change what is proven.
for name in $(compgen -e | grep -E '^(BITNET_|HF_|HUGGING|TRANSFORMERS_OFFLINE|MATRIX_)' || true); do
    unset "$name"
done
export NO_PROXY=127.0.0.1 no_proxy=127.0.0.1

require_all=0
only=
tested=0
while [ $# -gt 0 ]; do
    case $1 in
        --require-all) require_all=1 ;;
        --tested) tested=1 ;;
        --only)
            only=${2:?--only needs a name}
            shift
            ;;
        *)
            sed -n '2,10s/^# \{0,1\}//p' "$0"
            exit 2
            ;;
    esac
    shift
done

target=${CARGO_TARGET_DIR:-target}
mkdir -p "$target/validate"
target=$(cd "$target" && pwd)
work=$target/validate
stage=$work/stage
secret=hf_validateTokenThatMustStayHome
passed=0
failed=0
unavailable=0

# ---- the frame ---------------------------------------------------------------------------------------------

# Says why a check cannot run here, and what would fix it. A check returns with this.
missing() {
    printf '%s; to fix it: %s\n' "$1" "$2" >"$work/missing"
    return 77
}

# check NAME FUNCTION [ARGUMENTS]
check() {
    local name=$1 start=$SECONDS log code=0
    shift
    if [ -n "$only" ] && [[ $name != *"$only"* ]]; then
        return 0
    fi
    log=$work/${name//[^a-z0-9]/-}.log
    # In a shell of its own: -e holds inside, and a failure ends the check, not the script.
    (
        trap end_servers EXIT
        set -e
        "$@"
    ) >"$log" 2>&1 &
    wait $! || code=$?
    case $code in
        0)
            passed=$((passed + 1))
            printf 'ok           %s (%s s)%s\n' "$name" $((SECONDS - start)) "$(sed -n 's/^RESULT: /: /p' "$log" | tail -n 1)"
            ;;
        77)
            unavailable=$((unavailable + 1))
            printf 'unavailable  %s: %s\n' "$name" "$(cat "$work/missing")"
            ;;
        *)
            failed=$((failed + 1))
            printf 'FAILED       %s (%s s), the end of %s:\n' "$name" $((SECONDS - start)) "$log"
            tail -n 40 "$log" | sed 's/^/    /'
            ;;
    esac
}

# The line that stands behind a check's name.
result() { printf 'RESULT: %s\n' "$*"; }

servers=()
end_servers() {
    local pid
    for pid in "${servers[@]:+${servers[@]}}"; do
        kill "$pid" 2>/dev/null || true
    done
}

# hub DIR [ARGUMENTS]: starts the mock hub and sets `endpoint`.
hub() {
    local dir=$1 out tries=0
    shift
    out=$(mktemp "$work/endpoint.XXXXXX")
    "$target/debug/bitnet-mock-hub" --dir "$dir" --stop-after 600 "$@" >"$out" 2>"$out.err" &
    servers+=("$!")
    while ! grep -q '^http' "$out"; do
        tries=$((tries + 1))
        if [ $tries -gt 200 ]; then
            cat "$out.err"
            return 1
        fi
        sleep 0.05
    done
    endpoint=$(head -n 1 "$out")
}

# counted PYTHON: prints the value of an expression over the hub's log, `log`, a list of requests.
counted() {
    python3 - "$endpoint" "$1" <<'PY'
import json, sys, urllib.request
opener = urllib.request.build_opener(urllib.request.ProxyHandler({}))
log = json.load(opener.open(sys.argv[1] + "/_mock/log"))
print(eval(sys.argv[2], {"log": log}))
PY
}

# equal WHAT EXPECTED FOUND
equal() {
    if [ "$2" != "$3" ]; then
        echo "$1: expected $2, found $3"
        return 1
    fi
}

contains() {
    if ! grep -qF -- "$2" "$1"; then
        echo "$1 lacks: $2"
        cat "$1"
        return 1
    fi
}

bitnet() { timeout 300 "$target/debug/bitnet" "$@"; }

# Always the whole workspace: with `-p` cargo would build the dependencies again, with fewer features.
tests() { cargo test --quiet "$@"; }

# ---- the checks --------------------------------------------------------------------------------------------

# The programs are built because tests start them.
build() {
    tests --no-run
    rm -rf "$stage"
    repo=$("$target/debug/xtask" stage --to "$stage")
    echo "$repo" >"$work/repo"
}

# The tests of a target; it is an error if there are none of these names.
some_tests() {
    tests --test "$@" 2>&1 | tee "$work/tests"
    ! grep -q '^running 0 tests' "$work/tests"
}

hub_tests() {
    some_tests mock_hub
    some_tests hub
    some_tests hub_processes
}

discovery_tests() {
    tests --lib -- discovery:: tokenizer:: hub::
    some_tests engine -- discovery:: tokenizer::
    some_tests program -- discover:: remedies:: shown:: model_reference::
}

# Our ids against the crate `tokenizers`, and against SentencePiece's C++ library, on real vocabularies.
crossval() {
    local packages=$target/fixtures/python
    if ! "$target/debug/xtask" fixtures fetch; then
        missing "the vocabularies cannot be fetched" "cargo xtask fixtures fetch"
        return
    fi
    if [ ! -d "$packages/sentencepiece" ] && ! python3 -m pip install --quiet --disable-pip-version-check --target "$packages" sentencepiece; then
        missing "sentencepiece cannot be installed" "python3 -m pip install --target $packages sentencepiece"
        return
    fi
    local names=llama2,llama3,smollm2,sentencepiece skipped=()
    # The vocabularies that were there when `cargo test` ran.
    [ "$tested" -eq 0 ] || skipped=(--skip gpt2:: --skip mistral-v1:: --skip tiny-bitnet::)
    tests --test tokenizer_discovery_crossval -- --require "$names" "${skipped[@]:+${skipped[@]}}" 2>&1 | tee "$work/crossval"
    result "$(grep -h '^declared ' "$work/crossval" | tail -n 1)"
}

cells() {
    tests --test matrix -- --check "$1" ${2:+--require "$2"} 2>&1 | tee "$work/cells"
    result "$(grep -h '^declared ' "$work/cells" | tail -n 1)"
}

planted_lies() { tests --test selftest; }

soak() {
    "$target/debug/xtask" soak --downloads 500 --processes 8 | tee "$work/soak"
    result "$(grep -h ' sound, ' "$work/soak"); $(grep -o '[0-9.]* % of the duplicates avoided' "$work/soak")"
}

infer() {
    bitnet infer --model "$1" --prompt "Moses went up" --max-tokens 12 --temperature 0 --threads 1 "${@:2}"
}

# The model without a tokenizer: the error names three ways, and offline not a packet leaves, whatever is tried.
offline() {
    hub "$stage/hub"
    local repo cache
    repo=$(cat "$work/repo")
    cache=$(mktemp -d "$work/cache.XXXXXX")
    export HF_ENDPOINT=$endpoint BITNET_TOKENIZER_CACHE=$cache HF_HOME=$cache/hf
    if infer "$stage/model.gguf" 2>"$work/err"; then
        echo "a model without a tokenizer was run"
        return 1
    fi
    contains "$work/err" "Three ways out"
    contains "$work/err" "--auto-download"
    contains "$work/err" "bitnet download $repo"
    equal "requests without --auto-download" 0 "$(counted 'len(log)')"
    export BITNET_OFFLINE=1
    if infer "$stage/model.gguf" --auto-download 2>"$work/err"; then
        echo "a download while offline"
        return 1
    fi
    contains "$work/err" "offline"
    if bitnet download "$repo" 2>"$work/err"; then
        echo "a download while offline"
        return 1
    fi
    contains "$work/err" "unset BITNET_OFFLINE"
    bitnet discover "$stage/model.gguf" >"$work/chain" || true
    contains "$work/chain" "offline"
    equal "requests while offline" 0 "$(counted 'len(log)')"
    unset BITNET_OFFLINE
    # The other way round: the same commands do send something where they may.
    infer "$stage/model.gguf" --auto-download >"$work/online"
    [ "$(counted 'len(log)')" -gt 0 ]
    result "0 requests"
}

# Ten at once, on an empty cache: every file comes once, and all say what the same model with its own tokenizer says.
concurrent() {
    hub "$stage/hub" --fault drip=100000/20ms,on=cdn
    local cache pids=() pid i
    cache=$(mktemp -d "$work/cache.XXXXXX")
    export HF_ENDPOINT=$endpoint BITNET_TOKENIZER_CACHE=$cache HF_HOME=$cache/hf
    infer "$stage/embedded.gguf" >"$work/embedded.text"
    equal "requests for a model with a tokenizer" 0 "$(counted 'len(log)')"
    for i in 1 2 3 4 5 6 7 8 9 10; do
        infer "$stage/model.gguf" --auto-download >"$work/text.$i" 2>"$work/err.$i" &
        pids+=("$!")
    done
    i=0
    for pid in "${pids[@]}"; do
        i=$((i + 1))
        wait "$pid" || {
            echo "process $i failed"
            cat "$work/err.$i"
            return 1
        }
        diff "$work/embedded.text" "$work/text.$i"
    done
    local files
    equal "transfers of tokenizer.json" 1 "$(counted 'sum(e["side"] == "cdn" and e["method"] == "GET" for e in log)')"
    files='max([0] + list(__import__("collections").Counter(e["path"] for e in log if e["method"] == "GET" and e["status"] == 200).values()))'
    equal "most transfers of any one file" 1 "$(counted "$files")"
    result "10 processes, $(counted 'sum(e["sent"] for e in log)') bytes, each file once"
}

# Discovery as people see it: who wins in each case.
chains() {
    hub "$stage/hub"
    local cache dir repo
    repo=$(cat "$work/repo")
    cache=$(mktemp -d "$work/cache.XXXXXX")
    dir=$(mktemp -d "$work/models.XXXXXX")
    export HF_ENDPOINT=$endpoint BITNET_TOKENIZER_CACHE=$cache HF_HOME=$cache/hf
    winner() {
        bitnet discover "${@:2}" --format json >"$work/chain" || true
        python3 -c 'import json, sys; print(json.load(open(sys.argv[1]))["winner"])' "$work/chain" | {
            read -r found
            equal "who wins: ${*:2}" "$1" "$found"
        }
    }
    winner embedded "$stage/embedded.gguf"
    winner None "$stage/model.gguf"
    ln "$stage/model.gguf" "$dir/model.gguf"
    cp "$stage/hub/$repo/tokenizer.json" "$dir/"
    winner beside "$dir/model.gguf"
    echo '{"model": {"type": "BPE", "vocab": {"a": 0}, "merges": []}}' >"$dir/tokenizer.json"
    winner None "$dir/model.gguf"
    winner download "$stage/model.gguf" --auto-download
    bitnet download "$repo" --to "$dir/fetched" >"$work/fetched"
    winner cache "$stage/model.gguf"
    result "embedded, beside, wrong beside, download, cache, nowhere"
}

# The token goes to the endpoint and to no other origin: by the hub's log, and by the system calls where strace is here.
token() {
    local cache repo port
    repo=$(cat "$work/repo")
    cache=$(mktemp -d "$work/cache.XXXXXX")
    hub "$stage/hub" --fault away,on=hub,method=GET,path=tokenizer_config.json --private "$repo=$secret"
    export HF_ENDPOINT=$endpoint BITNET_TOKENIZER_CACHE=$cache HF_HOME=$cache/hf HF_TOKEN=$secret
    local command=("$target/debug/bitnet" -vv download "$repo" --file tokenizer.json --file tokenizer_config.json) seen=
    if command -v strace >/dev/null && strace -f -o /dev/null true 2>/dev/null; then
        strace -f -yy -s 100000 -e trace=write,writev,sendto,sendmsg,sendmmsg -o "$work/strace" "${command[@]}" >"$work/out" 2>"$work/err"
        port=${endpoint##*:}
        seen="; strace saw it on $(grep -F "$secret" "$work/strace" | grep -cF -- "->127.0.0.1:$port]") writes to the endpoint"
        grep -qF "$secret" "$work/strace"
        if grep -F "$secret" "$work/strace" | grep -vF -- "->127.0.0.1:$port]"; then
            echo "the token was written elsewhere"
            return 1
        fi
    else
        "${command[@]}" >"$work/out" 2>"$work/err"
        seen="; strace is not here, the hub's log alone says so"
    fi
    if grep -F "$secret" "$work/out" "$work/err"; then
        echo "the token was printed"
        return 1
    fi
    local side
    for side in hub cdn elsewhere; do
        [ "$(counted "sum(e['side'] == '$side' for e in log)")" -gt 0 ] || {
            echo "$side was not asked, so that nothing is proven"
            return 1
        }
    done
    equal "requests to other origins with the token" 0 "$(counted 'sum(e["authorization"] for e in log if e["side"] != "hub")')"
    equal "requests to the hub without the token" 0 "$(counted 'sum(not e["authorization"] for e in log if e["side"] == "hub")')"
    if grep -rlF "$secret" "$cache"; then
        echo "the token was written into the cache"
        return 1
    fi
    result "hub only, not printed, not stored$seen"
}

# The mock is honest: the official client gets along with it, down to its own cache layout.
official_client() {
    local packages=$work/python dir=$work/official
    if ! python3 -c pass 2>/dev/null; then
        missing "there is no python3" "apt-get install python3 python3-pip"
        return
    fi
    if ! PYTHONPATH=$packages python3 -c 'import huggingface_hub' 2>/dev/null; then
        if ! python3 -m pip --version >/dev/null 2>&1; then
            missing "python3 has no pip" "apt-get install python3-pip"
            return
        fi
        if ! python3 -m pip install --quiet --disable-pip-version-check --target "$packages" "huggingface_hub>=1.0"; then
            missing "huggingface_hub cannot be installed" "python3 -m pip install --target $packages huggingface_hub"
            return
        fi
    fi
    rm -rf "$dir"
    mkdir -p "$dir/org/name/sub"
    echo '{"a": 1}' >"$dir/org/name/config.json"
    cp golden/models/tiny-bitnet.gguf "$dir/org/name/sub/model.gguf"
    hub "$dir"
    PYTHONPATH=$packages python3 mock-hub/tests/huggingface_hub_check.py "$endpoint" "$dir" org/name
    result "huggingface_hub $(PYTHONPATH=$packages python3 -c 'import huggingface_hub; print(huggingface_hub.__version__)')"
}

overhead() {
    "$target/debug/xtask" benchmark --tokenizer-discovery-overhead --runs 7 | tee "$work/overhead"
    result "$(grep -o '[0-9.-]* % (look.*' "$work/overhead" | paste -sd ';')"
}

check "build" build
if [ "$failed" -gt 0 ]; then
    echo "1 FAILED: nothing else can run"
    exit 1
fi
# Everything else needs the programs; a build that --only left out is made up for.
if [ -n "$only" ] && [[ build != *"$only"* ]]; then
    build
fi
if [ "$tested" -eq 0 ]; then
    check "hub tests" hub_tests
    check "discovery tests" discovery_tests
    check "planted lies" planted_lies
    check "cells download" cells download download,hub
fi
check "crossval" crossval
# With the vocabularies that were fetched meanwhile.
check "cells discover" cells discover
check "cells tokenize" cells tokenize
check "chains" chains
check "soak" soak
check "offline" offline
check "concurrent infer" concurrent
check "token leak" token
check "official client" official_client
check "overhead" overhead

printf '%s ok, %s FAILED, %s unavailable\n' "$passed" "$failed" "$unavailable"
if [ $((passed + failed + unavailable)) -eq 0 ]; then
    echo "no check has a name with \`$only\` in it"
    exit 2
fi
if [ "$failed" -gt 0 ] || { [ "$require_all" -eq 1 ] && [ "$unavailable" -gt 0 ]; }; then
    exit 1
fi
