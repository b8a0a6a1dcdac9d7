#!/usr/bin/env bash
# tests/cli/cli_bench_placement.sh CADRE: `cadre bench placement` runs on ranks that are threads, and says what it was given
# wrongly. tests/gpu/placement runs it on processes.
set -euo pipefail
cadre=$1
here=$(cd "$(dirname "$0")" && pwd)
# shellcheck source=tests/cli/expect.sh
. "$here/expect.sh"
words='bench placement'
small=(--threads 2 --device cpu --model-shape tiny --layers 1 --rows-each 256 --microbatches 1 --warm 0)
expect 0 bench placement "${small[@]}" --placement local --rows 200
out '^2 x cpu, transport threads: tiny, 1 layers, recompute block; placement local, 2 trainers of 768 rows; equal lengths, 512 rows'
out '^ +0 +3 +200 +[0-9.]+ +[0-9.]+ +[0-9.]+$'
expect 0 bench placement "${small[@]}" --placement pool --rows 512 --dtype bf16
out 'placement pool, 1 trainers of 768 rows'
expect 0 bench placement "${small[@]}" --model-shape llama-3.1-8b --dtype bf16 --memory # nothing of it is allocated
out '^rank 1: [0-9]+[.][0-9]+ GiB$'
expect 0 bench placement "${small[@]}" --rows 128 --microbatches 3 --json # of two nothing is counted
python3 - <<'PY' || fail "waits of each rank"
import json

ranks = json.load(open("out"))["of_ranks"]
assert [(r["counted_microbatches"], r["waits_inside"], r["allocations_inside"]) for r in ranks] == [(1, 0, 0)] * 2, ranks
PY
expect 2 bench placement --placement both
err 'CLI-02: --placement: found "both", wanted in_place, pool or local'
expect 2 bench placement --lengths short
err 'CLI-02: --lengths: found "short", wanted pretrain or prolong'
expect 2 bench placement "${small[@]}" --model-shape huge
err 'CLI-02: --model-shape: found "huge", wanted llama-3.1-8b'
expect 2 bench placement --rows-each 100
err 'CLI-02: --rows-each'
finish 'bench placement as wanted'
