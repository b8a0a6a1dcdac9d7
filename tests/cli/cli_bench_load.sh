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
near = lambda a, b: abs(a - b) < 1e-6 * b
assert f["load_s"] > 0 and f["read_s"] > 0 and f["pin_s"] > 0 and f["unpin_s"] > 0
assert near(f["share_of_read"], f["read_s"] / f["load_s"])
links = f["links"]
assert [l["streams"] for l in links] == [1, 2, 1, 2, 1, 1] and f["link_gb_per_s"] == max(l["gb_per_s"] for l in links) > 0
assert [(l["row_bytes"] > 0, l["shift"]) for l in links] == [(False, 0)] * 4 + [(True, 0), (True, 8)]
assert f["share"] == max(f["share_of_read"], f["share_of_link"]), "of the lesser bound"
assert f["bound"] == ("link" if f["link_gb_per_s"] < f["read_gb_per_s"] else "page cache")
assert len(f["ways"]) == 1 and f["ways"][0]["load_s"] == f["load_s"] and f["ways"][0]["pin_s"] == f["pin_s"]
PY
expect 0 bench load --model "$model" --device cpu --repeat 1
out 'page cache'
expect 0 bench load --model "$model" --device cpu --repeat 1 --ways
out 'of the lesser'
[ "$(grep -c '^load ' out)" -eq 10 ] || fail "not every way was timed"
expect 1 bench load --model "$model" --device cpu --repeat 1 --want-share 10000
expect 2 bench load
err 'CLI-0'
finish "bench load: all held"
