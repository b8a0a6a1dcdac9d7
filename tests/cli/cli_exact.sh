#!/usr/bin/env bash
# tests/cli/cli_exact.sh CADRE CLI_DATASET: `batch.packer: exact` over a pool of two threads, with global batches of which
# no bound says how many microbatches they need, so that the solver is asked: five documents of a third of a microbatch
# and a little more. What it exports has learned the same as with the fast packer, which packs these the same.
set -euo pipefail
cadre=$1 tool=$2
here=$(cd "$(dirname "$0")" && pwd)
# shellcheck source=tests/cli/expect.sh
. "$here/expect.sh"

golden_model llama
dataset d.h5 llama 7 130 130 130 130 130 130 130 130 130 130 >tool.out
cat >run.yaml <<'YAML'
model: llama
output: runs/exact
batch: {tokens_per_trainer: 512, packer: exact}
attention: {placement: pool}
defaults: {steps: 3, global_batch_documents: 5, learning_rate: 1e-3, data: d.h5, order: file}
adapters: [{name: a, rank: 4}, {name: b, rank: 8}]
YAML

words="train with the exact packer"
"$cadre" train run.yaml --threads 2 >out 2>err || fail "exit code $?"
words="train with the fast packer"
"$cadre" train run.yaml --threads 2 --set batch.packer=fast --set output=runs/fast >out 2>err || fail "exit code $?"
for adapter in a b; do
    cmp -s "runs/exact/adapters/$adapter/adapter_model.safetensors" \
        "runs/fast/adapters/$adapter/adapter_model.safetensors" || fail "adapter $adapter differs"
done
python3 - <<'PY' >out 2>err || fail "run.json or metrics.jsonl"
import json
steps = {}
for kind in "exact", "fast":
    assert json.load(open(f"runs/{kind}/run.json"))["config"]["batch"]["packer"] == kind
    steps[kind] = [json.loads(line)["microbatch"] for line in open(f"runs/{kind}/metrics.jsonl")]
assert steps["exact"] == steps["fast"] and len(steps["exact"]) == 6, steps
PY

expect 2 train run.yaml --set batch.packer=cbc --print-config
err 'batch.packer: want one of fast, exact, found "cbc"'

# The process of the exact packer, asked nothing: no verb, and not silent about it.
words="pack-window"
"$cadre" pack-window </dev/null >out 2>err && fail "exit code 0 without a question"
finish "the exact packer trains as the fast one does where it finds nothing better"
