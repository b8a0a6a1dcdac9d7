#!/usr/bin/env bash
# tests/cli/trace_pool.sh TRACE_POOL: while both trainers are inside pong's dense steps, ping's tasks run on the server:
# seen in the merged trace of a run whose dense steps are slow (tests/unit/trainer/trace_pool.c).
set -euo pipefail
here=$(cd "$(dirname "$0")" && pwd)
dir=$(mktemp -d)
trap 'rm -rf "$dir"' EXIT
"$1" "$dir" >"$dir/table"
cat "$dir/table"
python3 "$here/trace_check.py" "$dir/trace/trace.json" "$dir/table" 0.7
