#!/usr/bin/env bash
# tests/cli/cli_bench_overlap.sh CADRE: `cadre bench overlap` runs, at the smallest size; what it finds is no test on a
# machine that does other things (unit.trainer.overlap is).
set -euo pipefail
cadre=$1
here=$(cd "$(dirname "$0")" && pwd)
# shellcheck source=tests/cli/expect.sh
. "$here/expect.sh"
words='bench overlap'
code=0
"$cadre" bench overlap --hidden 128 --layers 1 --rows 300 --delay-ms 1 --rounds 1 >out 2>err || code=$?
if [ "$code" -gt 1 ] || [ -s err ]; then fail "exit code $code"; fi
out '^1 layers of 128, two documents of 300 rows, 1 rounds; 1 ms a message, 8 ms of a step'
out '^on +[0-9.]+ +[0-9.]+ +-?[0-9.]+ ms +-?[0-9.]+%'
out '^off +[0-9.]+'
expect 2 bench overlap --hidden 100
err 'CLI-02: --hidden: found "100", wanted'
expect 2 bench overlap --hidden 192
err 'wanted a multiple of 128'
expect 2 bench overlap --rounds 0
err 'CLI-02'
finish 'bench overlap as wanted'
