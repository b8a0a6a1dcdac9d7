#!/usr/bin/env bash
# tests/cli/cli_trace.sh CADRE CLI_DATASET MPIEXEC: `cadre train --trace` and `cadre trace` on documents that lie on both
# trainers of a pool, as threads and as processes (trace_check.py). What lies under what is left to trace_pool.sh, whose
# dense steps are slow whatever the machine does.
set -euo pipefail
cadre=$1 tool=$2 mpiexec=$3
here=$(cd "$(dirname "$0")" && pwd)
# shellcheck source=tests/cli/expect.sh
. "$here/expect.sh"

mkdir config
cat >config/config.json <<'JSON'
{"architectures": ["LlamaForCausalLM"], "model_type": "llama", "hidden_size": 64, "intermediate_size": 128,
 "num_hidden_layers": 3, "num_attention_heads": 2, "num_key_value_heads": 1, "head_dim": 32, "vocab_size": 512,
 "max_position_embeddings": 4096, "rms_norm_eps": 1e-5, "rope_theta": 10000.0, "tie_word_embeddings": true,
 "hidden_act": "silu", "torch_dtype": "float32", "attention_bias": false}
JSON
printf '{"stands for": "llama"}' >config/tokenizer.json
expect 0 init-model config/config.json model --seed 1
dataset d.h5 model 7 430 430 430 430
# Two documents a microbatch: one in ping, one in pong, each on both trainers.
cat >run.yaml <<'YAML'
model: model
output: runs/pool
batch: {tokens_per_trainer: 512}
attention: {placement: pool}
defaults: {steps: 3, global_batch_documents: 2, learning_rate: 1e-4, data: d.h5, order: file}
adapters: [{name: a, rank: 4}]
YAML

run() { # run WORD...: trains, and tells of stderr only when it fails
    words="train $*"
    "$cadre" train "$@" >out 2>err || fail "exit code $?"
}
check() { # check RUN: the trace of a pool
    expect 0 trace "$1"
    cp out table
    python3 "$here/trace_check.py" "$1/trace/trace.json" table 0 >out 2>err || fail "$(cat err)"
    cat out
}

run run.yaml --threads 3 --trace 2
grep -q 'trace of 2 microbatches' err || fail 'the log does not say so'
[ "$(find runs/pool/trace -name 'rank-*' | wc -l)" = 3 ] || fail 'not a file for each rank'
check runs/pool
grep -q 'clocks within 0.0 us' table || fail 'threads have one clock'
expect 0 trace runs/pool -o together.json
cmp -s together.json runs/pool/trace/trace.json || fail '-o writes another trace'
python3 - runs/pool/metrics.jsonl >out 2>err <<'PY' || fail 'metrics.jsonl has no split that adds up'
import json, sys
for record in map(json.loads, open(sys.argv[1])):
    parts = [record[part + "_s"] for part in ("dense", "attention", "exchange", "waiting", "idle")]
    assert min(parts) >= 0 and abs(sum(parts) - record["step_time_s"]) < 1e-6, record
    assert record["dense_s"] > 0, record
PY

# As processes; their clocks are the host's.
words='train over MPI'
"$mpiexec" --oversubscribe -np 3 "$cadre" train run.yaml --set output=runs/mpi --trace 2 >out 2>err || fail "exit code $?"
check runs/mpi

# Ranks that pass for those of two hosts compare their clocks. A run shorter than its trace leaves what there is.
run run.yaml --set output=runs/hosts --set attention.placement=in_place --set defaults.steps=1 --threads 2 --hosts 1,1 --trace 50
expect 0 trace runs/hosts
out 'clocks within [0-9.]+ us'
if grep -q 'within 0.0 us' out; then fail 'the clocks of two hosts were not compared'; fi
out '^ *1  trainer 1 '

# Without --trace there is none.
run run.yaml --set output=runs/plain --set defaults.steps=1 --threads 3
[ ! -e runs/plain/trace ] || fail 'a trace that nobody asked for'
expect 3 trace runs/plain
err 'RUN-08: runs/plain: no trace of this run: runs/plain/trace/rank-0000.json is not there'
rm runs/pool/trace/rank-0001.json
expect 3 trace runs/pool
err 'RUN-08: runs/pool/trace/rank-0001.json is not there, and the run had 3 ranks'
cp runs/hosts/trace/rank-0001.json runs/pool/trace/
expect 3 trace runs/pool
err 'rank-0001.json is of a run of 2 ranks, rank-0000.json of one of 3'
sed -i '9s/"ph"/"hp"/' runs/hosts/trace/rank-0001.json
expect 3 trace runs/hosts
err 'RUN-08: runs/hosts/trace/rank-0001.json:9: not an event of a trace'
head -n -1 runs/mpi/trace/rank-0002.json >short && mv short runs/mpi/trace/rank-0002.json
expect 3 trace runs/mpi
err 'rank-0002.json:' && err 'the file is cut short'
sed -i '1s/ranks/rank/' runs/mpi/trace/rank-0000.json
expect 3 trace runs/mpi
err 'rank-0000.json:1: not the head of a trace'
expect 2 trace
err 'RUN_FOLDER'
expect 2 train run.yaml --trace 0
err 'CLI-02'
finish 'traces as wanted'
