#!/usr/bin/env bash
# tests/cli/trace_pool.sh TRACE_POOL MPIEXEC: while both trainers are inside pong's dense steps, ping's tasks run on the
# server: seen in the merged trace of a run whose dense steps are slow (tests/unit/trainer/trace_pool.c), over the threads
# transport and over MPI.
set -euo pipefail
here=$(cd "$(dirname "$0")" && pwd)
dir=$(mktemp -d)
trap 'rm -rf "$dir"' EXIT

check() { # check TRANSPORT WORD...
    local run=$dir/$1
    "${@:2}" "$run" >"$run.table"
    cat "$run.table"
    python3 "$here/trace_check.py" "$run/trace/trace.json" "$run.table" 0.7
}
check threads "$1"
check mpi "$2" --oversubscribe -np 3 "$1"
