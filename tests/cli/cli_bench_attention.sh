#!/usr/bin/env bash
# tests/cli/cli_bench_attention.sh CADRE: `cadre bench attention` times what it says, takes turns with a peer and writes a
# profile that the planner reads. Speeds are not judged here.
set -euo pipefail
cadre=$1
here=$(cd "$(dirname "$0")" && pwd)
# shellcheck source=tests/cli/expect.sh
. "$here/expect.sh"
small=(--device cpu --shrink 256)

# A peer that takes as long as its argument says, notes what it was asked, and cannot do windows.
cat >peer.py <<'PY'
import json, sys

for line in sys.stdin:
    asked = json.loads(line)
    with open("asked", "a") as log:
        log.write(line)
    ns = [int(sys.argv[1])] * asked["samples"]
    answer = {"even": {"forward_ns": ns, "backward_ns": [2 * x for x in ns]}, "no windows": {"forward_ns": [x - 1 for x in ns]}}
    if asked["window"]:
        answer["no windows"] = {"error": "no windows here"}
    print(json.dumps(answer), flush=True)
PY

# Some cases; with a peer that is never faster.
words="bench attention"
code=0
"$cadre" bench attention "${small[@]}" --only 16k --peer "python3 -B peer.py 1000000000000" --rounds 2 --samples 1 \
    --json all.json >out 2>err || code=$?
if [ "$code" -ne 0 ] || [ -s err ]; then fail "exit code $code"; fi
out '^2 documents of 16k, 32:8 +forward .* no windows; >= 1.00: yes$'
out '^ +backward .* even; >= 1.00: yes$'
out '^16 shards of 512 at 16k, 32:8 +forward .* our dense$'
out 'no windows: no windows here$'
python3 - <<'PY' || fail "numbers"
import json

f = json.load(open("all.json"))
cases = {c["case"]: c for c in f["cases"]}
asked = [json.loads(line) for line in open("asked")]
assert f["device"] == "cpu" and f["commit"] and f["date"] and f["shrink"] == 256 and f["ops"] == "product"
assert len(asked) == 2 * len(cases) and [a["round"] for a in asked[:2]] == [0, 1]

# Floating-point operations, counted from the tasks that the peer was told.
tasks = {a["case"]: a["tasks"] for a in asked}
for name, case in cases.items():
    window = case["window"] or 1 << 40
    pairs = sum(min(row + 1, window) * (h1 - h0) for _, q0, q1, h0, h1 in tasks[name] for row in range(q0, q1))
    flops = 4 * pairs * case["group"] * case["head_dim"]
    assert case["forward"]["flops"] == flops and case["backward"]["flops"] == 2.5 * flops, name
    assert case["tasks"] == len(tasks[name])
    for d in ("forward", "backward"):
        ns = sorted(case[d]["call_ns"])
        assert len(ns) == 2 and case[d]["median_ns"] == sum(ns) // 2 and ns[0] > 0, name
        assert abs(case[d]["tflops"] - case[d]["flops"] / case[d]["median_ns"] / 1e3) <= 1e-9 * case[d]["tflops"]

dense, window = cases["2 documents of 16k, 32:8"], cases["16k, window 1024, 32:8"]
assert tasks[dense["case"]] == [[0, 0, 64, 0, 8], [1, 0, 64, 0, 8]]
assert abs(dense["forward"]["ratio"] * dense["forward"]["median_ns"] / (10**12 - 1) - 1) < 1e-12
assert abs(dense["backward"]["ratio"] * dense["backward"]["median_ns"] / (2 * 10**12) - 1) < 1e-12
assert dense["forward"]["met"] and window["peers"]["no windows"]["error"] == "no windows here"
assert abs(window["forward"]["ratio"] * window["forward"]["median_ns"] / 10**12 - 1) < 1e-12
shards = cases["16 shards of 512 at 16k, 32:8"]
for d in ("forward", "backward"):  # in turns with the dense case, timed anew
    ns = shards[d]["dense_ns"]
    rate = dense[d]["flops"] / (sum(ns) // 2) / 1e3
    assert len(ns) == 2 and ns != dense[d]["call_ns"] and abs(shards[d]["ratio"] * rate / shards[d]["tflops"] - 1) < 1e-9
assert shards["forward"]["met"] is None and "dense_ns" not in dense["forward"]
PY

# A peer that is faster: the answer is no.
expect 1 bench attention "${small[@]}" --only "document of 32k, 32" --peer "python3 -B peer.py 1000" --samples 2
out ' no windows; >= 1.00: NO$'

# The profile is one that the planner takes.
code=0
"$cadre" bench attention --device cpu --no-cases --max-keys 512 --group 2 --head-dim 32 --profile profile.json \
    --json grid.json >out 2>err || code=$?
if [ "$code" -gt 1 ] || [ -s err ]; then fail "exit code $code"; fi
out '^worst: '
python3 - <<'PY' || fail "profile"
import json

p, grid = json.load(open("profile.json")), json.load(open("grid.json"))["grid"]
assert p["keys"] == [128, 256, 384] and p["group"] == 2 and p["head_dim"] == 32 and p["dtype"] == "fp32"
assert {(c["rows"], c["prefix"], c["kv_heads"]) for c in grid} == {(r, 0, h) for r in (128, 512) for h in (1, 8)}
assert all(c["forward_ns"] > 0 and c["backward_ns"] > 0 and c["equal_tasks"] >= 1 for c in grid)
PY
words="bench plan --profile"
("$cadre" bench plan --profile profile.json --draws 1 --max-servers 4 2>err || true) | head -1 >out || true
out '^profile: cpu, measured \(cadre bench attention --profile'

expect 0 bench attention --help
out '^Usage: cadre bench attention'
expect 2 bench attention --device tpu
err 'CLI-02: --device: found "tpu", wanted cuda or cpu'
expect 2 bench attention "${small[@]}" --rounds 8 --samples 9
err 'CLI-02: --samples: found "9", wanted a whole number from 1 to 8'
expect 2 bench attention --ops product
err 'unknown option'

# What a peer can do wrong. The table's head is out by then, so stdout is not looked at.
broken() { # broken TEXT COMMAND
    local code=0
    words="bench attention --peer $2"
    "$cadre" bench attention "${small[@]}" --only "document of 128, 32" --peer "$2" >out 2>err || code=$?
    if [ "$code" -lt 2 ]; then fail "exit code $code"; fi
    err "CLI-03: --peer: $1"
}
broken "the command has ended" "exit 3"
broken "the command has ended" "read -r line"
broken "" "read -r line; echo hello; read -r line"
broken "" "read -r line; echo '{\"x\": 1}'; read -r line"
broken "" "read -r line; echo '{\"x\": {\"forward_ns\": [-1]}}'; read -r line"
expect 2 bench attention "${small[@]}" --only nothing
err 'CLI-02: --only: no case has "nothing" in its name'

finish "attention timed"
