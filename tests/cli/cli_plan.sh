#!/usr/bin/env bash
# tests/cli/cli_plan.sh CADRE CLI_DATASET: what `cadre plan` answers (users' complaint 22). That it is right is checked
# against real runs in unit.trainer.memory_plan.
set -euo pipefail
cadre=$1 tool=$2
here=$(cd "$(dirname "$0")" && pwd)
# shellcheck source=tests/cli/expect.sh
. "$here/expect.sh"

golden_model llama
dataset code.h5 llama 1 300 200 100 120 140 250 60 70 80 >code.txt
cat >two.yaml <<'YAML'
model: llama
output: runs/two
batch:
  tokens_per_trainer: 512
defaults:
  epochs: 2
  global_batch_documents: 3
  learning_rate: 1e-2
adapters:
  - name: code
    data: code.h5
    rank: 8
  - name: legal
    data: code.h5
    rank: 4
    targets: [q_proj, v_proj]
YAML
expect 0 plan two.yaml --json
[ "$(number fits)" = True ] || fail "does not fit"
python3 - <<'PY' || fail "numbers"
import json

f = json.load(open("out"))
assert [a["adapter"] for a in f["adapters"]] == ["code", "legal"]
assert [a["documents"] for a in f["adapters"]] == [9, 9] and [a["steps"] for a in f["adapters"]] == [6, 6]
# q, v of 2 layers: 2 * (4 * (48 + 48) + 4 * (48 + 24)); golden/README.md has the dimensions
assert f["adapters"][1]["trainable_parameters"] == 2 * (4 * (48 + 48) + 4 * (48 + 24)), f["adapters"]
assert f["longest_document"] == 300 and f["tokens_per_trainer"] == 512
(rank,) = f["ranks"]
assert rank["total_bytes"] == f["total_bytes"] == sum(rank[k] for k in ("device_bytes", "driver_bytes", "host_bytes", "transient_bytes"))
assert rank["driver_bytes"] == 0 # of a GPU
assert 0 < f["total_bytes"] < f["available_bytes"]
assert f["epoch"]["whole"] and f["epoch"]["microbatches"] >= 2 * 1320 // 512 and 0 < f["epoch"]["pad_share"] < 0.5
assert f["regions"] == sorted(f["regions"], key=lambda r: -r["bytes"])
PY
total=$(number total_bytes)
[ ! -e runs ] || fail "plan wrote into output"

# More rows take more, two ranks take more together, --set and --threads are heard.
expect 0 plan two.yaml --json --set batch.tokens_per_trainer=4096
[ "$(number total_bytes)" -gt $((2 * total)) ] || fail "4096 rows take no more than 512"
# For a GPU, which need not be here: bf16, and what would be made again there.
expect 0 plan two.yaml --json --set train.device=cuda --memory 100000
python3 -c 'import json; f = json.load(open("out")); assert (f["dtype"], f["recompute"]) == ("bf16", "none")' || fail "for a GPU"
# What the driver takes and 2 GiB are left free beside the arena: so little is left here that all is made again.
expect 0 plan two.yaml --json --set train.device=cuda --memory 2049
python3 -c 'import json; assert json.load(open("out"))["recompute"] == "block"' || fail "for a small GPU"
# The driver and libraries count: NCCL's buffers too, more with more ranks; of four GPUs of 2 GiB nothing is left for them.
"$cadre" plan two.yaml --set train.device=cuda --memory 100000 >out 2>err
grep -q '^driver and libraries, MiB, in the totals: 626.0$' out || fail "driver and libraries"
drivers() { # drivers RANKS TRANSPORT: what rank 0's driver takes
    expect 0 plan two.yaml --json --threads "$1" --set train.device=cuda --set train.transport="$2" --set batch.tokens_per_trainer=256 \
        --memory 100000
    python3 -c 'import json; print(json.load(open("out"))["ranks"][0]["driver_bytes"] >> 20)'
}
[ "$(drivers 4 copy_engine)" -eq 1023 ] || fail "driver and libraries over copy engines"
two=$(drivers 2 nccl) four=$(drivers 4 nccl)
if [ "$two" -ne 2624 ] || [ "$four" -ne $((two + 2 * 2 * 384)) ]; then
    fail "driver and libraries over NCCL: $two, $four"
fi
expect 0 plan two.yaml --json --set train.recompute=qkv
python3 -c 'import json; f = json.load(open("out")); assert (f["dtype"], f["recompute"]) == ("fp32", "qkv")' || fail "recompute"
expect 0 plan two.yaml --json --threads 2
python3 -c 'import json; assert len(json.load(open("out"))["ranks"]) == 2' || fail "not two ranks"

# What the plans reach is never below what no plan is below; on one server there is nothing to share.
expect 0 plan two.yaml --json --threads 4 --set batch.tokens_per_trainer=256
python3 - <<'PY' || fail "plans on four servers"
import json

plans = json.load(open("out"))["plans"]
assert 0 < len(plans) <= 8 and all(p["makespan_ns"] >= p["bound_ns"] > 0 for p in plans), plans
assert any(p["remote_tasks"] > 0 for p in plans) and all(p["tasks"] >= p["remote_tasks"] for p in plans), plans
PY
# Where servers are unlike, by their speeds: two of them faster make all faster.
cat >sum.py <<'PY'
import json

print(sum(p["makespan_ns"] for p in json.load(open("out"))["plans"]))
PY
alike=$(python3 sum.py)
expect 0 plan two.yaml --json --threads 4 --set batch.tokens_per_trainer=256 --set attention.server_speeds="[2,1,1,3]"
[ $((3 * $(python3 sum.py))) -lt $((2 * alike)) ] || fail "speeds of servers"
expect 2 plan two.yaml --threads 4 --set attention.server_speeds="[2,1,1]"
err 'CONF-04: attention.server_speeds: 3 numbers, want one for each of 4 servers'
expect 0 plan two.yaml --json
python3 -c 'import json; assert all(p["remote_tasks"] == 0 for p in json.load(open("out"))["plans"])' || fail "one server"
# By another machine's times; that file's faults.
expect 0 bench profile --derived -o derived.json
python3 - <<'PY'
import json

p = json.load(open("derived.json"))
p |= {"group": 2, "head_dim": 12}
json.dump(p, open("fits.json", "w"))
PY
expect 0 plan two.yaml --json --set attention.cost_profile=fits.json
python3 -c 'import json; assert json.load(open("out"))["plans"][0]["bound_ns"] < 1000000' || fail "not by the file"
expect 3 plan two.yaml --set attention.cost_profile=derived.json
err 'CONF-04: derived.json: attention.cost_profile: made for 4 query heads of 128 lanes for each KV head'
expect 3 plan two.yaml --set attention.cost_profile=none.json
err 'IO-01'

"$cadre" plan two.yaml >out 2>err || fail "exit code"
words="plan two.yaml"
out '^yes: it fits: [0-9.]+ MiB on 1 rank; there are [0-9.]+ MiB \('
out '^code +9 +6 +[0-9]+$'
out '^rank 0 +[0-9.]+ +[0-9.]+ +[0-9.]+ +[0-9.]+$'
out '^first epoch of all: [0-9]+ microbatches'
out '^attention on 1 server, one layer'
out '^ +0 +[0-9]+ +[0-9]+ +0 +[0-9.]+ ms +[0-9.]+ ms +[0-9.]+ %$'
err 'cadre: warning: '
err '% of the rows are pad rows'
"$cadre" plan two.yaml --regions >out 2>err || fail "exit code"
out '^arena device: [0-9]+ regions'

# No: more than there is. No: a document that no microbatch holds.
large=(--set batch.tokens_per_trainer=16384 --memory 80)
expect 1 plan two.yaml --json "${large[@]}"
[ "$(number fits)" = False ] || fail "fits"
rows=$(number tokens_that_fit)
expect 1 plan two.yaml "${large[@]}"
out '^no: it does not fit: [0-9.]+ MiB on 1 rank; there are 80.0 MiB \(--memory\)$'
out "rows would fit: --set batch.tokens_per_trainer=$rows instead of 16384"
# What it says would fit does, and not by much.
"$cadre" plan two.yaml --memory 80 --json --set batch.tokens_per_trainer="$rows" >out 2>err || fail "$rows rows do not fit"
[ "$(number total_bytes)" -gt $((60 << 20)) ] || fail "$rows rows leave much free"
expect 1 plan two.yaml --memory 1
out 'the longest document alone \(300 rows\) is too much for 1 rank'
expect 2 plan two.yaml --memory 0
err 'CLI-02: --memory: found "0"'
expect 1 plan two.yaml --set batch.tokens_per_trainer=256
err 'cadre: error PLAN-01: a document has 300 rows; 1 trainers of 256 rows hold 256; 2 would do'

# The other answers.
expect 2 plan
err 'CLI-02: plan: RUN.yaml is missing'
expect 2 plan two.yaml --threads 0
err 'CLI-02: --threads: found "0"'
expect 2 plan two.yaml --region
err 'nearest is "--regions"'
expect 2 plan two.yaml --set adapters.code.rnak=4
err 'CONF-03'
expect 3 plan two.yaml --set adapters.code.data=none.h5 --set adapters.legal.data=none.h5
err 'none.h5'
golden_model qwen3
expect 3 plan two.yaml --set model=qwen3
err 'DATA-13'

# More datasets than files may be open at first.
sed '/^adapters:/q' two.yaml >many.yaml
for i in $(seq 60); do echo "  - {name: a$i, data: code.h5, rank: 1}"; done >>many.yaml
words="plan many.yaml, 40 open files"
(ulimit -Sn 40 && exec "$cadre" plan many.yaml) >out 2>err || fail "exit code $?"
out '^a60 '

finish "all plans as wanted"
