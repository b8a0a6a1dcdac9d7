#!/usr/bin/env bash
# tests/cli/cli_bench_load.sh CADRE MODEL: `cadre bench load` loads and reads a model folder. How fast that is, is measured on GPUs
# (tests/gpu/run load), not here.
set -euo pipefail
cadre=$1 model=$2
here=$(cd "$(dirname "$0")" && pwd)
# shellcheck source=tests/cli/expect.sh
. "$here/expect.sh"

expect 0 bench load --model "$model" --device cpu --repeat 1 --json
python3 - "$model" <<'PY' || fail "numbers"
import json, pathlib, struct, sys

f = json.load(open("out"))
data = pathlib.Path(sys.argv[1], "model.safetensors").read_bytes()
assert f["bytes"] == len(data) - 8 - struct.unpack("<Q", data[:8])[0], "all tensors, once"
assert f["load_s"] > 0 and f["read_s"] > 0 and abs(f["share"] - f["read_s"] / f["load_s"]) < 1e-6 * f["share"]
PY
expect 0 bench load --model "$model" --device cpu --repeat 1
out 'page cache'
expect 1 bench load --model "$model" --device cpu --repeat 1 --want-share 10000
expect 2 bench load
err 'CLI-0'
finish "bench load: all held"
