#!/usr/bin/env bash
# tests/cli/cli_bench_train.sh CADRE: `cadre bench train` trains a shape on the device and counts; how fast it is, is
# measured on GPUs (tests/gpu/run one), not here.
set -euo pipefail
cadre=$1
here=$(cd "$(dirname "$0")" && pwd)
# shellcheck source=tests/cli/expect.sh
. "$here/expect.sh"
tiny=(--device cpu --model-shape tiny --documents 2 --rows 256 --repeat 2 --json)

for kind in "--dtype fp32 --adapters 1 --recompute none" "--dtype bf16 --adapters 2 --recompute block"; do
    # shellcheck disable=SC2086 # several words on purpose
    expect 0 bench train "${tiny[@]}" $kind
    # shellcheck disable=SC2086
    python3 - $kind <<'PY' || fail "numbers of $kind"
import json, sys

f = json.load(open("out"))
words = dict(zip(sys.argv[1::2], sys.argv[2::2]))
assert f["dtype"] == words["--dtype"] and f["adapters"] == int(words["--adapters"])
assert f["recompute"] == words["--recompute"] and f["batch_rows"] == 512 and f["device"] == "cpu"
assert len(f["steps_ns"]) == 2 and f["step_ns"] in f["steps_ns"] and f["tokens_per_s"] > 0
assert 0 < f["last_loss"] < f["first_loss"]  # the same documents again: something is learned
ops = {o["op"]: o for o in f["ops"]}
assert ops["adamw"]["calls"] == f["adapters"]
# two layers and two halves; with `block` the norms of a layer are made again, and the head's is not
norms = ops["rmsnorm_fwd"]["calls"] + ops["add_rmsnorm_fwd"]["calls"]
assert norms == (18 if f["recompute"] == "block" else 10)
assert ops["add"]["calls"] == 2, "behind the last layer only: the others are added by the norm behind them"
assert ops["attention_fwd"]["calls"] == 4, "core attention is never repeated"
assert f["serial_ops_ns"] <= f["serial_step_ns"]
assert f["waits_inside"] == 0 and f["counted_microbatches"] == 2  # behind two that warm up
assert f["allocations_inside"] == 0 or f["dtype"] == "bf16"  # the CPU widens operands into memory it asks for
assert abs(sum(f["parts"].values()) - 1) < 1e-9 and min(f["parts"].values()) >= 0
element = 2 if f["dtype"] == "bf16" else 4
assert ops["add"]["bytes"] == ops["add"]["calls"] * 3 * 256 * 256 * element  # calls of a half's rows, two in and one out
assert all(o["bytes"] > 0 for o in f["ops"])
assert f["bare"]["n"] == 1024 and f["bare"]["flops_per_ns"] > 0 and f["bare"]["copy_bytes_per_ns"] > 0
assert f["bare"]["attention_documents"] == 1 and min(f["bare"][f"attention_{w}_flops_per_ns"] for w in ("fwd", "bwd")) > 0
assert f["used_bytes"] == 0 < f["arena_bytes"] == f["planned_bytes"] <= f["device_bytes"]  # no driver counts a CPU's memory
assert f["parts"]["dense"] > 0 and f["parts"]["attention"] > 0
PY
done

# The report of `tests/gpu/run one` on these: a step has a bound by both rates, which op by op it cannot beat on average,
# and what did not run is missing.
mkdir -p one
cp out one/one_documents_4x4096.json
words='bench train, as one_report.py sees it'
python3 "$here/../gpu/one_report.py" one >out 2>err && fail "all held, though most is missing"
out '^bare: a product of 512x1024x256 '
out '^  linear layers  .* [0-9.]+$'
out '^with attention as fast as alone +[0-9.]+ ms, '
out '^bound of the step, of both ceilings +[0-9.]+ ms, '
out '^adapters_4 +MISSING'
out '^transformers \+ PEFT with adapters in fp32 did not run'
# The peer is judged with adapters in fp32, as ours are, whatever one in bf16 reaches; three generations of its file.
beside() { # beside RATIO...: the peer that many times slower than ours: by default, under autocast, in bf16, with no memory
    python3 - "$@" <<'PY'
import json, sys

ours = json.load(open("one/one_documents_4x4096.json"))["tokens_per_s"]
words = ({}, {"autocast": True}, {"adapters": "bf16"})
variants = [{**w, "tokens_per_s": ours / float(ratio)} for w, ratio in zip(words, sys.argv[1:])]
json.dump({"variants": [*variants, {"out_of_memory": "all of it"}]}, open("one/one_peer.json", "w"))
PY
    if python3 "$here/../gpu/one_report.py" one >out 2>err; then fail "all held, though most is missing"; fi
}
beside 1.9 1.6 1.4
out '^the best of .* ours 1.900 times that; adapters and their products in fp32$'
out '^the best of .* ours 1.600 times that; adapters in fp32, products in bf16$'
out '^the best of .* ours 1.400 times that; adapters and moments in bf16: not the same training$'
out '^beside the better of those in fp32 +1.600, wanted 1.5: yes$'
beside 1.9 1.4 1.3
out '^beside the better of those in fp32 +1.400, wanted 1.5: NO$'

# What a policy keeps, without a device of that size: a layer's x, o and lse are 17 kB a row, all of it 145 kB.
expect 0 bench train --device cpu --dtype bf16 --memory
out '^recompute none +[0-9]+'
python3 - <<'PY' || fail "memory"
import re

gib = {m[0]: float(m[1]) for m in re.findall(r"recompute (\w+) +([0-9.]+) GiB", open("out").read())}
saved = (gib["none"] - gib["block"]) * 2**30 / 16384 / 32
assert gib["none"] > gib["qkv"] > gib["block"] > 15, gib  # weights alone are 15 GiB
assert 110e3 < saved < 140e3, saved
PY
expect 0 bench train --device cpu --model-shape tiny --documents 1 --rows 256 --warm 1 --repeat 1
out '^bare +a product of 256x1024x256 '
expect 0 bench train --device cpu --model-shape tiny --documents 1 --rows 256 --warm 1 --repeat 1 --steps-only --json
python3 -c 'import json; f = json.load(open("out")); assert f["ops"] == [] and "bare" not in f and f["counted_microbatches"] == 0' ||
    fail "steps only"
# Any shape that a config.json has: here with biases, tied, and one with a window.
golden=${CADRE_SOURCE_DIR:-$here/../..}/tests/golden/files
for family in qwen2 mistral; do
    expect 0 bench train --device cpu --model-shape "$golden/$family/model/config.json" --layers 3 --documents 1 --rows 768 --warm 1 \
        --repeat 1 --steps-only --json
    python3 - $family <<'PY' || fail "the shape of $family"
import json, sys

f = json.load(open("out"))
layer = 2 * 48 * (4 + 2) * 12 + 3 * 48 * 80 + 2 * 48  # q and o, k and v; gate, up, down; two norms
biases = {"qwen2": (4 + 2 * 2) * 12, "mistral": 0}[sys.argv[1]]
embeddings = {"qwen2": 1, "mistral": 2}[sys.argv[1]]
assert f["parameters"] == 3 * (layer + biases) + embeddings * 97 * 48 + 48, f["parameters"]
assert f["first_loss"] > 0
PY
done
expect 3 bench train --device cpu --model-shape none.json
err 'IO-01: none.json'
expect 0 bench train --help
out '^Usage: cadre bench train'
expect 2 bench train --model-shape llama-9b
err 'CLI-02: --model-shape: found "llama-9b", wanted llama-3.1-8b'
expect 2 bench train --device cpu --dtype fp16
err 'CLI-02: --dtype: found "fp16", wanted fp32 or bf16'
expect 2 bench train --recompute all
err 'CLI-02: --recompute: found "all"'
expect 2 bench train --adapters 17
err 'CLI-02: --adapters: found "17"'

finish "two ways of training measured"
