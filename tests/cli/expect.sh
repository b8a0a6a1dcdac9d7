# tests/cli/expect.sh: sourced by scripts that look at exit code, stdout and stderr of cadre. Sets up a folder of its
# own, $dir, and enters it; the caller has set $cadre. Ends with `finish`.
# shellcheck shell=bash
dir=$(mktemp -d)
trap 'rm -rf "$dir"' EXIT
cd "$dir" || exit 1
failures=0
words=
golden=${CADRE_SOURCE_DIR:?}/tests/golden/files

fail() { # fail TEXT
    printf 'cadre %s: %s\n' "$words" "$1"
    sed 's/^/    stdout: /' out
    sed 's/^/    stderr: /' err
    failures=$((failures + 1))
}

# expect CODE WORD...: runs cadre and checks the exit code.
expect() {
    local want=$1 got=0
    shift
    words=$*
    "${cadre:?}" "$@" >out 2>err || got=$?
    if [ "$got" -ne "$want" ]; then fail "exit code $got, wanted $want"; fi
    if [ "$want" -eq 0 ] && [ -s err ]; then fail "stderr is not empty"; fi
    if [ "$want" -gt 1 ] && [ -s out ]; then fail "stdout is not empty"; fi
}
out() { grep -qE -- "$1" out || fail "stdout has no line like $1"; }
err() { grep -qF -- "$1" err || fail "stderr has no $1"; }
errors() { [ "$(grep -c 'cadre: error' err)" -eq "$1" ] || fail "stderr does not have $1 errors"; }

# await SECONDS COMMAND...: until it succeeds; 1 when it does not. The time is for a machine that does other things and a
# program that a sanitizer watches; what waits is quick everywhere else.
await() {
    local until=$((SECONDS + $1))
    while ! "${@:2}"; do
        [ "$SECONDS" -lt "$until" ] || return 1
        sleep 0.02
    done
}
has_checkpoint() { [ -n "$(checkpoints "$1")" ]; }

# interrupted CODE RUN SEND BEGIN WORD...: BEGIN WORD... puts a run with folder RUN into the background, as $pid; once it has
# a checkpoint, SEND (given $pid) ends it, with CODE. A run that was over before that, because we were kept waiting, is begun
# again.
interrupted() {
    local want=$1 run=$2 send=$3 got=0
    shift 3
    words="(in the background) $run"
    for _ in 1 2 3 4 5; do
        rm -rf "$run"
        : >err
        "$@"
        await 150 has_checkpoint "$run" || fail "no checkpoint"
        "$send" "$pid" 2>/dev/null || true # it may be over
        got=0
        wait "$pid" 2>/dev/null || got=$?
        if [ "$got" -ne 0 ]; then break; fi
    done
    [ "$got" -eq "$want" ] || fail "exit code $got, wanted $want"
}

# checkpoints RUN: the names of its complete ones, one a line.
checkpoints() {
    local folder
    for folder in "$1"/checkpoints/mb-*; do
        if [[ $folder =~ /(mb-[0-9]+)$ ]]; then echo "${BASH_REMATCH[1]}"; fi
    done
}

# number KEY: of the JSON object in out.
number() { python3 -c 'import json,sys; print(json.load(open("out"))[sys.argv[1]])' "$1"; }
# near A B TOLERANCE: relative.
near() {
    python3 -c 'import sys; a,b,t=map(float,sys.argv[1:]); sys.exit(abs(a-b) > t*abs(b))' "$1" "$2" "$3" ||
        fail "found $1, wanted $2 to within $3"
}

# golden_model FAMILY: a copy of a golden base model, with a file that stands for its tokenizer.
golden_model() {
    cp -r "$golden/$1/model" "$1"
    printf '{"stands for": "%s"}' "$1" >"$1/tokenizer.json"
}

# dataset WORD...: cli_dataset, without what cmocka says.
dataset() { "${tool:?}" "$@" 2>tool.err | grep '^[0-9]' || grep -q 'PASSED.* 1 test' tool.err || true; }

finish() { # finish TEXT
    if [ "$failures" -ne 0 ]; then
        echo "$failures failures"
        exit 1
    fi
    echo "$1"
}
