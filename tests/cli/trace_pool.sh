#!/usr/bin/env bash
# tests/cli/trace_pool.sh TRACE_POOL MPIEXEC: while both trainers are inside pong's dense steps, ping's tasks run on the
# server: seen in the merged trace of a run whose dense steps are slow (tests/unit/trainer/trace_pool.c), over the threads
# transport and over MPI. A machine that runs other programs may hold a rank up for longer than such a step: a run that
# shows all but the overlap is repeated.
set -euo pipefail
here=$(cd "$(dirname "$0")" && pwd)
dir=$(mktemp -d)
trap 'rm -rf "$dir"' EXIT

check() { # check TRANSPORT WORD...
    local run code
    for attempt in 1 2 3 4 5 6; do
        run=$dir/$1-$attempt
        "${@:2}" "$run" >"$run.table"
        cat "$run.table"
        code=0
        python3 "$here/trace_check.py" "$run/trace/trace.json" "$run.table" 0.7 || code=$?
        if [ "$code" -ne 4 ]; then return "$code"; fi
    done
    return 1
}
check threads "$1"
check mpi "$2" --oversubscribe -np 3 "$1"
