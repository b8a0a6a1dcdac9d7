#!/usr/bin/env bash
# tests/cli/cli_words.sh CADRE: what the program answers to --version, help and to words it does not know.
# shellcheck disable=SC2016  # backquotes in the expected texts are meant as they are
set -euo pipefail
cadre=$1
dir=$(mktemp -d)
trap 'rm -rf "$dir"' EXIT
failures=0

fail() { # fail TEXT
    printf 'cadre %s: %s\n' "$words" "$1"
    sed 's/^/    stdout: /' "$dir/out"
    sed 's/^/    stderr: /' "$dir/err"
    failures=$((failures + 1))
}

# expect CODE WORD...: runs cadre, checks the exit code and that stdout is empty on failure and stderr on success.
expect() {
    local want=$1 got=0
    shift
    words=$*
    "$cadre" "$@" >"$dir/out" 2>"$dir/err" || got=$?
    if [ "$got" -ne "$want" ]; then fail "exit code $got, wanted $want"; fi
    if [ "$want" -eq 0 ] && [ -s "$dir/err" ]; then fail "stderr is not empty"; fi
    if [ "$want" -ne 0 ] && [ -s "$dir/out" ]; then fail "stdout is not empty"; fi
}
out() { grep -qE -- "$1" "$dir/out" || fail "stdout has no line like $1"; }
err() { grep -qxF -- "$1" "$dir/err" || fail "stderr has no line $1"; }

expect 0 --version
for line in '^cadre [0-9]+\.[0-9]+\.[0-9]+$' '^commit    ([0-9a-f]{12}(-dirty)?|unknown)$' '^preset    [a-z]+ ' \
    '^compiler  (GNU|Clang) [0-9]' '^cpu       .*, [0-9]+ processors?$' '^gpu       ' '^mpi       .*\(MPI [0-9.]+\)$' \
    '^hdf5      [0-9]+\.[0-9]+\.[0-9]+$' '^openblas  [0-9.]+.*, core [A-Za-z0-9]+$' '^libyaml   [0-9.]+$' \
    '^cuda      ' '^nccl      '; do
    out "$line"
done
cp "$dir/out" "$dir/version"
expect 0 version
cmp -s "$dir/out" "$dir/version" || fail "differs from cadre --version"

# Every line of the help that names a verb names one that works.
expect 0 --help
cp "$dir/out" "$dir/help"
for word in help -h; do
    expect 0 "$word"
    cmp -s "$dir/out" "$dir/help" || fail "differs from cadre --help"
done
verbs=$(sed -n '/^Verbs:/,/^$/s/^  \([a-z-]*\) .*/\1/p' "$dir/help")
[ -n "$verbs" ] || fail "lists no verbs"
for verb in $verbs; do
    expect 0 "$verb" --help
    out '^Usage: cadre'
    cp "$dir/out" "$dir/page"
    expect 0 help "$verb"
    cmp -s "$dir/out" "$dir/page" || fail "differs from cadre $verb --help"
done

expect 2 verison
err 'cadre: error CLI-01: unknown verb "verison"; nearest is "version"'
err '    `cadre --help` lists the verbs'
expect 2 help hepl
err 'cadre: error CLI-01: unknown verb "hepl"; nearest is "help"'
expect 2 zzzzzz
err 'cadre: error CLI-01: unknown verb "zzzzzz"'
expect 2 ''
err 'cadre: error CLI-01: unknown verb ""'
expect 2
err 'cadre: error CLI-01: no verb given'
expect 2 --verison
err 'cadre: error CLI-02: unknown option "--verison"; nearest is "--version"'
expect 2 --version extra
err 'cadre: error CLI-02: --version: unexpected argument "extra"'
expect 2 help version extra
err 'cadre: error CLI-02: version: unexpected argument "extra"'

# What a shell makes of a variable that is not set.
expect 2 score --model '' --data x.h5
err 'cadre: error CLI-02: --model: found an empty text; a variable that is not set?'
expect 2 export runs/a --adapter=code -o ''
err 'cadre: error CLI-02: -o: found an empty text; a variable that is not set?'
expect 2 train ''
err 'cadre: error CLI-02: train: found an empty text; a variable that is not set?'

# A stream that is closed: no file gets its number, here that which is read.
words="plan, with stderr closed" got=0
mkfifo "$dir/held"
exec 9<>"$dir/held"
"$cadre" plan "$dir/held" >/dev/null 2>&- 9>&- &
pid=$!
reads() { readlink "/proc/$pid/fd/"* 2>/dev/null | grep -qx "$dir/held"; }
for _ in $(seq 500); do
    if reads || ! kill -0 "$pid" 2>/dev/null; then break; fi
    sleep 0.02
done
reads || fail "does not read the configuration"
[ "$(readlink "/proc/$pid/fd/2")" = /dev/null ] || fail "stderr is $(readlink "/proc/$pid/fd/2")"
exec 9>&-
wait "$pid" || got=$?
[ "$got" -eq 2 ] || fail "exit code $got, wanted 2"

# A full disk is not success.
if [ -w /dev/full ]; then
    words="--version > /dev/full" got=0
    "$cadre" --version >/dev/full 2>"$dir/err" || got=$?
    : >"$dir/out"
    if [ "$got" -ne 4 ]; then fail "exit code $got, wanted 4"; fi
fi

if [ "$failures" -ne 0 ]; then
    echo "$failures failures"
    exit 1
fi
echo "all words answered"
