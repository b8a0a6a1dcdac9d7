#!/usr/bin/env bash
# tests/cli/cli_train.sh CADRE CLI_DATASET: `cadre train` as users call it. Two adapters go on from PEFT folders (init:)
# and have the gradients, losses, norms and final values of transformers and PEFT (tests/golden); what a run leaves; what
# it refuses.
set -euo pipefail
cadre=$1 tool=$2
here=$(cd "$(dirname "$0")" && pwd)
# shellcheck source=tests/cli/expect.sh
. "$here/expect.sh"
within() { # within LIMIT WORD...: what golden/compare.py finds is at most that
    local found
    found=$(python3 "$here/../golden/compare.py" "${@:2}") || { fail "compare.py ${*:2} failed"; return; }
    python3 -c 'import sys; sys.exit(float(sys.argv[1]) > float(sys.argv[2]))' "$found" "$1" ||
        fail "compare.py ${*:2}: found $found, wanted at most $1"
}
state() { python3 -c 'import json,sys; print(json.load(open(sys.argv[1] + "/status.json"))["state"])' "$1"; }

for family in llama qwen3; do
    golden_model "$family"
    dataset "$family-wide.h5" "$family" --golden "$family" wide >tool.out
    dataset "$family-narrow.h5" "$family" --golden "$family" narrow >tool.out
    cat >"$family.yaml" <<YAML
model: $family
output: runs/$family
batch:
  tokens_per_trainer: 1024
defaults:
  steps: 10
  order: file
  learning_rate: 1e-3
  warmup_steps: 2
  weight_decay: 0.01
  clip_norm: 0.5
adapters:
  - name: wide
    data: $family-wide.h5
    init: $golden/$family/wide
    rank: 4
    alpha: 6
    rslora: true
    global_batch_documents: 3
  - name: narrow
    data: $family-narrow.h5
    init: $golden/$family/narrow
    rank: 8
    targets: [q_proj, v_proj, down_proj]
    global_batch_documents: 4
YAML
    words="train $family.yaml"
    "$cadre" train "$family.yaml" --dump-gradients "g-$family.safetensors" >out 2>err || fail "exit code $?"
    for adapter in wide narrow; do
        scale=$([ $adapter = wide ] && echo 3 || echo 2)
        within 1e-4 tensors "g-$family.$adapter.safetensors" "$golden/$family/$adapter-gradients.safetensors" 1
        within 1e-4 steps "runs/$family" "$golden/$family" "$adapter"
        within 1e-4 tensors "runs/$family/adapters/$adapter/adapter_model.safetensors" \
            "$golden/$family/$adapter-final.safetensors" "$scale"
    done
    [ "$(state "runs/$family")" = "done" ] || fail "status.json does not say done"
done
out "^wide +10/10 "
out "^host waits between microbatches: 0; "
out "^requests for memory inside microbatches: 0$"
[ "$(wc -l <runs/llama/metrics.jsonl)" -eq 20 ] || fail "metrics.jsonl has not 20 lines"
python3 - <<'PY' || fail "run.json"
import json
run = json.load(open("runs/llama/run.json"))
assert run["config"]["adapters"][0]["rank"] == 4 and len(run["model"]["hash"]) == 16
assert run["command"][0].endswith("cadre") and run["command"][1] == "train", run["command"]
PY

# A gradient that could not be written is said before anything is trained.
expect 3 train llama.yaml --set output=runs/new --dump-gradients no/where.safetensors
err 'IO-02: --dump-gradients: no/where.safetensors: cannot create: No such file or directory'
[ ! -e runs/new ] || fail "a run was begun"
# So are all faults of the folders that adapters begin with, in a plan too.
cp -r "$golden/llama/wide" eight
sed -i 's/"rank_pattern": {}/"rank_pattern": {"v_proj": 8}/' eight/adapter_config.json
for verb in train plan; do
    expect 3 $verb llama.yaml --set output=runs/new --set adapters.wide.init=./eight --set adapters.narrow.init=./none
    err 'DATA-45: ./eight/adapter_model.safetensors: tensor "base_model.model.model.layers.0.self_attn.v_proj.lora_A.weight"'
    err 'DATA-45: ./eight/adapter_model.safetensors: tensor "base_model.model.model.layers.0.self_attn.v_proj.lora_B.weight"'
    err 'DATA-40: ./none: there is no such folder'
    [ ! -e runs/new ] || fail "a run was begun"
done
# What has to be prepared is said with the words that do it: the file, its sets, and what is missing besides.
expect 3 train llama.yaml --set output=runs/new --set "adapters.wide.data=it's.jsonl"
err "runs/new/prepared/wide.h5: not there, and neither is it's.jsonl, of which it is made; run \`cadre prepare llama.yaml \
--set output=runs/new --set 'adapters.wide.data=it'\\''s.jsonl'\`"
# The table counts what is trained on: the dataset without what is held out.
words="train llama.yaml with documents held out"
"$cadre" train llama.yaml --set output=runs/held --set defaults.steps=2 --set adapters.wide.eval_documents=2 \
    --set defaults.warmup_steps=1 --set adapters.wide.eval_every_steps=1 \
    --set adapters.narrow.global_batch_documents=1000 >out 2>err || fail "exit code $?"
err "cadre: warning: narrow: global_batch_documents is 1000, there are "
python3 - <<'PY' || fail "supervised tokens of the table"
import json
shown = next(int(line.split()[2].replace(",", "")) for line in open("err") if line.startswith("wide "))
held = next(r["eval_supervised_tokens"] for r in map(json.loads, open("runs/held/metrics.jsonl")) if "eval_loss" in r)
whole = json.load(open("runs/held/run.json"))["datasets"][0]["supervised_tokens"]
assert shown == whole - held < whole, (shown, whole, held)
PY

# No room for what OpenBLAS takes at its first product, where it would try for ever. Sanitizers want more than any limit.
if "$cadre" --version | grep -q '^preset    cpu '; then
    code=0
    (ulimit -v 2000000 && OPENBLAS_NUM_THREADS=1 timeout 60 "$cadre" train llama.yaml --set output=runs/limited --threads 16 \
        --set attention.placement=local --set batch.tokens_per_trainer=1024) >out 2>err || code=$?
    words="train llama.yaml under ulimit -v"
    [ "$code" -eq 4 ] || fail "exit code $code, wanted 4"
    err "no room for the buffers of OpenBLAS, 2064 MiB of address space (ulimit -v): Cannot allocate memory"
    rm -rf runs/limited
fi

# bf16: the same losses but for the rounding, 2^-8 of an activation, and a mean over many of them.
words="train llama.yaml in bf16"
"$cadre" train llama.yaml --set output=runs/bf16 --set train.dtype=bf16 >out 2>err || fail "exit code $?"
for adapter in wide narrow; do
    within 4e-3 steps runs/bf16 "$golden/llama" "$adapter"
done

# All weights of the model, and its gradients under Hugging Face's names.
cat >full.yaml <<'YAML'
model: llama
output: runs/full
data: llama-wide.h5
train: {mode: full}
defaults: {steps: 2, global_batch_documents: 2, learning_rate: 1e-3}
YAML
words="train full.yaml"
"$cadre" train full.yaml --dump-gradients full.safetensors >out 2>err || fail "exit code $?"
python3 - <<'PY' || fail "names of gradients"
import json, struct
def names(path):
    data = open(path, "rb").read()
    return set(json.loads(data[8 : 8 + struct.unpack("<Q", data[:8])[0]])) - {"__metadata__"}
assert names("full.safetensors") == names("llama/model.safetensors") == names("runs/full/model/model.safetensors")
PY

# The best by evaluation is what is exported, not the last: with so high a rate it only gets worse after the first steps.
dataset eval.h5 llama 9 50 60 70 >tool.out
cat >best.yaml <<'YAML'
model: llama
output: runs/best
data: llama-wide.h5
train: {mode: full}
defaults: {steps: 12, global_batch_documents: 2, learning_rate: 3e-2, eval: eval.h5, eval_every_steps: 1}
YAML
words="train best.yaml"
"$cadre" train best.yaml >out 2>err || fail "exit code $?"
cp llama/tokenizer.json runs/best/model/
"$cadre" score --model runs/best/model --data eval.h5 --json >out 2>err || fail "score: exit code $?"
python3 - "$(number loss)" <<'PY' || fail "the exported model is not the best"
import json, sys
found = [json.loads(line).get("eval_loss") for line in open("runs/best/metrics.jsonl")]
found = [loss for loss in found if loss is not None]
assert len(found) == 12 and found[-1] > 1.001 * min(found), found
assert abs(float(sys.argv[1]) - min(found)) <= 1e-5 * min(found), (sys.argv[1], found)
PY

# What is refused, and loses nothing.
expect 2 train llama.yaml
err "RUN-01"
expect 2 train llama.yaml --set output=runs/new --set adapters.wide.rnak=8
err "nearest is \"rank\""
expect 3 train llama.yaml --set output=runs/new --set batch.tokens_per_trainer=256
err "PLAN-01"
err "line "
expect 3 train llama.yaml --set output=runs/new --set model=qwen3
err "DATA-13"
expect 2 train llama.yaml --set output=runs/new --set adapters.wide.rank=8
err "DATA-46"
cp -r "$golden/llama/wide" dora
sed -i 's/"use_dora": false/"use_dora": true/' dora/adapter_config.json
expect 3 train llama.yaml --set output=runs/new --set adapters.wide.init=./dora
err "use_dora"
expect 3 train full.yaml --set output=runs/new --set train.dtype=bf16
err "DEV-01"
err "train.mode: full"
expect 3 train full.yaml --set output=runs/new --set train.device=cuda
err "DEV-01"
err "train.mode: full does not train on a GPU yet"
if "$cadre" --version | grep -q "^cuda  *not in this build"; then
    expect 3 train llama.yaml --set output=runs/new --set train.device=cuda
    err "DEV-01"
    err "built without CUDA"
fi
expect 0 train llama.yaml --print-config
out "rank: 4"
expect 0 train --help
expect 2 train --thraeds 2
err "nearest is \"--threads\""
finish "train: gradients, losses, norms and final adapters of two families; what a run leaves; refusals"
