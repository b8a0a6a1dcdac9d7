#!/usr/bin/env bash
# tests/cli/cli_resume.sh CADRE CLI_DATASET [threads]: checkpoints and --resume as users meet them. A run that goes on from
# any of its checkpoints, or after kill -9 or a signal, learns bit for bit what an undisturbed one learns; damaged checkpoints,
# a full disk, other settings and other data are said.
# With `threads` only what has ranks as threads, and signals.
set -euo pipefail
cadre=$1 tool=$2 only=${3:-all}
here=$(cd "$(dirname "$0")" && pwd)
# shellcheck source=tests/cli/expect.sh
. "$here/expect.sh"
: >out
: >err

same() { python3 "$here/same_run.py" "$@" || fail "not the same"; }
state() { python3 -c 'import json,sys; print(json.load(open(sys.argv[1] + "/status.json"))["state"])' "$1"; }
# run CODE WORD...: as expect, but progress on stderr is fine.
run() {
    local want=$1 got=0
    shift
    words=$*
    "$cadre" "$@" >out 2>err || got=$?
    if [ "$got" -ne "$want" ]; then fail "exit code $got, wanted $want"; fi
}
# cut RUN NEW CHECKPOINT: NEW is RUN as it stood with CHECKPOINT as its last one, killed some time later.
cut() {
    rm -rf "$2"
    cp -r "$1" "$2"
    for later in "$2"/checkpoints/*; do
        if [[ ${later##*/} > $3 ]]; then rm -r "$later"; fi
    done
}
# each CODE CONFIG WORD...: runs it, and goes on from its first, a middle and its last checkpoint but one.
each() {
    local want=$1 config=$2
    shift 2
    local keep=(--set train.keep_checkpoints=1000)
    rm -rf runs/whole
    run "$want" train "$config" --set output=runs/whole "${keep[@]}" "$@"
    local all
    mapfile -t all < <(ls runs/whole/checkpoints)
    [ ${#all[@]} -ge 4 ] || fail "only ${#all[@]} checkpoints"
    for i in 0 $((${#all[@]} / 2)) $((${#all[@]} - 2)); do
        cut runs/whole runs/part "${all[i]}"
        rm -rf runs/part/adapters/* runs/part/model
        run "$want" train "$config" --set output=runs/part "${keep[@]}" --resume "$@"
        same runs/whole runs/part
    done
}

golden_model llama
dataset code.h5 llama 1 40 50 60 70 30 20 90 100 120 35 >tool.out
dataset other.h5 llama 3 40 50 60 70 >tool.out
dataset eval.h5 llama 2 40 50 >tool.out

# ==== bit for bit: dropout, an evaluation and its patience, global batches of several microbatches; on two ranks ====

cat >run.yaml <<'YAML'
model: llama
output: runs/x
batch:
  tokens_per_trainer: 256
train:
  checkpoint_every_microbatches: 7
defaults:
  epochs: 4
  global_batch_documents: 6
  learning_rate: 1e-2
adapters:
  - name: code
    data: code.h5
    rank: 8
    dropout: 0.1
  - name: stops
    data: code.h5
    eval: eval.h5
    eval_every_steps: 1
    early_stopping_patience: 2
    learning_rate: 1
    epochs: 50
    rank: 4
YAML
each 0 run.yaml --threads 2 --set train.checkpoint_every_microbatches=3

cat >calm.yaml <<'YAML'
model: llama
output: runs/x
batch:
  tokens_per_trainer: 256
train:
  checkpoint_every_microbatches: 4
  keep_checkpoints: 1000
defaults:
  steps: 6
  global_batch_documents: 6
  learning_rate: 1e-4
  schedule: constant
adapters:
  - {name: code, data: code.h5, rank: 8, dropout: 0.1}
  - {name: plain, data: code.h5, rank: 4}
YAML

# ==== kill -9, signals ====

long=(train calm.yaml --set defaults.steps=60 --set train.keep_checkpoints=2)
run 0 "${long[@]}" --set output=runs/long
begin() { # begin NAME: the same, in the background
    "$cadre" "${long[@]}" --set output="runs/$1" >out 2>err &
    pid=$!
}
begin_hanging_up() { # as begin, where SIGHUP is as a terminal leaves it
    env --default-signal=HUP "$cadre" "${long[@]}" --set output="runs/$1" >out 2>err &
    pid=$!
}
begin_unread() { # begin_unread SIGNAL: with a reader of its words that has ended, and with SIGNAL ignored
    env --ignore-signal="$1" "$cadre" "${long[@]}" --set output=runs/unread >out 2> >(exec true) &
    pid=$!
}
send_hup_and_int() { # the terminal of a nohup goes, and then it is asked to stop
    kill -HUP "$1"
    sleep 0.3
    kill -INT "$1"
}
for signal in KILL USR1 TERM INT HUP; do
    eval "send_$signal() { kill -$signal \"\$1\"; }"
done
interrupted 137 runs/killed send_KILL begin killed
mkdir -p runs/killed/checkpoints/mb-009999.tmp # as a kill within a save leaves it
echo half >runs/killed/checkpoints/mb-009999.tmp/state.h5
run 2 "${long[@]}" --set output=runs/killed
err "RUN-01"
run 0 "${long[@]}" --set output=runs/killed --resume
same runs/long runs/killed
left=(runs/killed/checkpoints/*) # what a kill has left there is gone too
[ ${#left[@]} -eq 2 ] || fail "not the last two checkpoints: ${left[*]}"
for signal in USR1 TERM INT HUP; do
    # A shell's background job ignores SIGINT until somebody handles it.
    interrupted 75 "runs/$signal" "send_$signal" "begin$([ $signal != HUP ] || echo _hanging_up)" "$signal"
    err "saving within 4 microbatches"
    [ "$(state "runs/$signal")" = saved ] || fail "state $(state "runs/$signal")"
    run 0 "${long[@]}" --set output="runs/$signal" --resume
    same runs/long "runs/$signal"
done

# Ctrl-C in `cadre train run.yaml | tee log` ends tee first; nohup's SIGHUP ends nothing.
interrupted 75 runs/unread send_hup_and_int begin_unread HUP
[ "$(state runs/unread)" = saved ] || fail "state $(state runs/unread)"
run 0 "${long[@]}" --set output=runs/unread --resume
same runs/long runs/unread

if [ "$only" = threads ]; then
    finish "resume: bit for bit with ranks as threads, after kill -9 and signals"
    exit 0
fi

# ==== bit for bit: one rank ====

each 0 run.yaml
grep -q 'stops.*stopped early\|stops: stopped' runs/whole/logs/rank-0000.log err || fail "nothing stopped early"
each 0 run.yaml --set batch.max_rank_columns=8 # adapters lose their places to each other

cat >broken.yaml <<'YAML'
model: llama
output: runs/x
batch:
  tokens_per_trainer: 512
train:
  checkpoint_every_microbatches: 5
defaults:
  global_batch_documents: 2
  learning_rate: 1e-2
adapters:
  - name: code
    data: code.h5
    rank: 8
    dropout: 0.1
    steps: 25
  - name: broken               # its gradient is not finite after some steps
    data: code.h5
    rank: 4
    alpha: 1000000
    learning_rate: 10
    weight_decay: 1
    steps: 80
YAML
each 5 broken.yaml

cat >full.yaml <<'YAML'
model: llama
output: runs/x
data: code.h5
batch: {tokens_per_trainer: 256}
train: {mode: full, checkpoint_every_microbatches: 4}
defaults: {steps: 8, global_batch_documents: 5, learning_rate: 1e-3}
YAML
each 0 full.yaml
each 0 full.yaml --set defaults.eval=eval.h5 --set defaults.eval_every_steps=2

# ==== other ranks, other microbatches: within 1e-5 ====

run 0 train calm.yaml --set output=runs/calm
run 0 train calm.yaml --set output=runs/calm2 --threads 2
for case in "calm 2 256" "calm2 1 256" "calm 1 512"; do
    read -r from ranks tokens <<<"$case"
    cut "runs/$from" runs/part mb-000008
    [ -d runs/part/checkpoints/mb-000008 ] || cut "runs/$from" runs/part "$(checkpoints "runs/$from" | sed -n 2p)"
    run 0 train calm.yaml --set output=runs/part --threads "$ranks" --set batch.tokens_per_trainer="$tokens" --resume
    same runs/calm runs/part 1e-5
done
grep -q 'resume: batch.tokens_per_trainer is 512 now, was 256' runs/part/logs/rank-0000.log || fail "the log of what was taken"

# ==== larger steps, with a constant rate ====

run 0 train calm.yaml --set output=runs/longer --set defaults.steps=9
cp -r runs/calm runs/part9
run 0 train calm.yaml --set output=runs/part9 --set defaults.steps=9 --resume --trace 2 --dump-gradients next.safetensors
same runs/longer runs/part9 1e-5 # other microbatches: what comes after the sixth step is planned earlier
run 0 trace runs/part9
grep -q '"name":"dense ping forward"' runs/part9/trace/trace.json || fail "no microbatch in the trace"
# An export of the shorter run does not pass for that of the longer one, which failed.
cp -r runs/calm runs/stale
mkdir runs/stale/adapters/code.tmp-0000
: >runs/stale/adapters/code.tmp-0000/notes
run 3 train calm.yaml --set output=runs/stale --set defaults.steps=9 --resume
err "cadre: error RUN-10: code: trained to the end and not exported: runs/stale/adapters/code.tmp-0000: is in the way"
rm -r runs/stale/adapters/code.tmp-0000
cmp -s runs/calm/adapters/code/adapter_model.safetensors runs/stale/adapters/code~before/adapter_model.safetensors ||
    fail "the shorter run's adapter is gone"
rm -r runs/stale/adapters/code~before
run 0 train calm.yaml --set output=runs/stale --set defaults.steps=9 --resume
same runs/longer runs/stale 1e-5
cp runs/calm/metrics.jsonl before.jsonl
# The gradients that were asked for are those of the first steps that were made now.
python3 - <<'PY' || fail "gradients of a resumed run"
import array, json, struct
first = {}
for record in map(json.loads, open("runs/part9/metrics.jsonl")):
    if "grad_norm" in record and record["step"] > 6:
        first.setdefault(record["adapter"], record["grad_norm"])
assert sorted(first) == ["code", "plain"], first
for name, norm in first.items():
    data = open(f"next.{name}.safetensors", "rb").read()
    values = array.array("f", data[8 + struct.unpack("<Q", data[:8])[0] :])
    found = sum(v * v for v in values) ** 0.5
    assert abs(found - norm) <= 1e-5 * norm, (name, found, norm)
PY
run 0 train calm.yaml --set output=runs/calm --resume --dump-gradients none.safetensors # nothing is left to do
err 'code: ended without another global batch, so it has no gradient to write'
if grep -q 'where the time went' out; then fail "a table of no time"; fi
cmp -s before.jsonl runs/calm/metrics.jsonl || fail "metrics.jsonl changed"
[ "$(state runs/calm)" = "done" ] || fail "state $(state runs/calm)"

# ==== damaged checkpoints ====

cut runs/calm runs/damaged mb-000012
last=$(checkpoints runs/damaged | tail -n 1)
truncate -s -100 "runs/damaged/checkpoints/$last/state.h5"
run 0 train calm.yaml --set output=runs/damaged --resume
err "RUN-06: runs/damaged/checkpoints/$last: state.h5 is not what SHA256SUMS says"
err "the checkpoint before it is taken"
same runs/calm runs/damaged
[ -d "runs/damaged/checkpoints/$last.damaged" ] || fail "it is not put aside"
cut runs/calm runs/damaged "$(checkpoints runs/calm | sed -n 1p)"
rm runs/damaged/checkpoints/*/gradients-0000.h5
run 3 train calm.yaml --set output=runs/damaged --resume
err "RUN-06"
err "gradients-0000.h5 is missing"
rm -r runs/damaged/checkpoints
run 0 train calm.yaml --set output=runs/damaged --resume # afresh
same runs/calm runs/damaged

# ==== a disk without room: ulimit stands for it ====

(
    ulimit -f 60
    run 0 train calm.yaml --set output=runs/small
    err "RUN-07: checkpoint after microbatch 4:"
    err "File too large"
    exit "$failures"
) || failures=$((failures + 1))
same runs/calm runs/small
[ -z "$(ls runs/small/checkpoints)" ] || fail "something is left of a checkpoint"
# A disk that fills while it trains and has room again before the end: nothing is missing. One that stays full: what was
# trained is not exported, and --resume makes up for it.
full=(train calm.yaml --set defaults.steps=60 --set train.keep_checkpoints=2)
no_room_or_over() { grep -qE 'metrics.jsonl: cannot write: .*; its records wait in memory' err || ! kill -0 "$pid" 2>/dev/null; }
fills() { # fills NAME: files may not grow any more once it has a checkpoint; again when it was over before that
    words="(in the background) runs/$1"
    for _ in 1 2 3 4 5; do
        rm -rf "runs/$1"
        : >err
        "$cadre" "${full[@]}" --set output="runs/$1" >out 2> >(exec cat >err) & # a pipe may grow
        pid=$!
        await 150 has_checkpoint "runs/$1" || fail "no checkpoint"
        prlimit --pid "$pid" --fsize=0:unlimited 2>/dev/null || true
        await 150 no_room_or_over || fail "metrics find room"
        if kill -0 "$pid" 2>/dev/null; then return; fi
    done
    fail "it was always over before its disk was full"
}
for _ in 1 2 3 4 5; do # again when it was over before there was room
    fills filled
    prlimit --pid "$pid" --fsize=unlimited:unlimited 2>/dev/null || true
    code=0
    wait "$pid" || code=$?
    if [ "$code" -eq 0 ]; then break; fi
done
[ "$code" -eq 0 ] || fail "exit code $code"
err "RUN-07: checkpoint after microbatch"
same runs/long runs/filled
fills full
code=0
wait "$pid" || code=$?
[ "$code" -eq 4 ] || fail "exit code $code, wanted 4"
err "cadre: warning: RUN-10: plain has ended and cannot be exported: runs/full/adapters/plain.tmp-0000/"
err "cadre: error RUN-10: code, plain: trained to the end and not exported: runs/full/adapters/"
[ -z "$(ls runs/full/adapters)" ] || fail "something is left of an export"
run 0 "${full[@]}" --set output=runs/full --resume
same runs/long runs/full

words="(stopped without room)"
for _ in 1 2 3 4 5; do # again when it was over before the signal came
    rm -rf kept
    cut runs/calm runs/small "$(checkpoints runs/calm | sed -n 1p)"
    cp -r runs/small/checkpoints kept
    code=0
    : >err
    (ulimit -f 60 && exec "$cadre" "${long[@]}" --set output=runs/small --resume) >out 2>err &
    pid=$!
    await 150 grep -q 'RUN-07' err || fail "a checkpoint finds room"
    kill -TERM "$pid" 2>/dev/null || true
    wait "$pid" || code=$?
    if [ "$code" -ne 0 ]; then break; fi
done
[ "$code" -eq 4 ] || fail "exit code $code, wanted 4"
err "RUN-07: stopped after microbatch"
diff -r kept runs/small/checkpoints || fail "the checkpoints before changed"
[ "$(state runs/small)" = failed ] || fail "state $(state runs/small)"

# ==== what is refused changes nothing ====

cp -r runs/calm runs/refused
refused() { # refused WORD...
    run 2 train calm.yaml --set output=runs/refused --resume "$@"
    diff -r -x logs runs/calm runs/refused >diff.out || fail "something changed: $(cat diff.out)"
}
sed -i 's/runs\/calm/runs\/refused/' runs/refused/config.yaml
cp runs/refused/config.yaml runs/calm/config.yaml
refused --set adapters.code.rank=16 --set adapters.plain.learning_rate=1e-3
err "RUN-05: calm.yaml: adapters.code.rank is 16, the run began with 8: it changes what was learned"
err "RUN-05: calm.yaml: adapters.plain.learning_rate is 0.001, the run began with 0.0001"
refused --set defaults.steps=5
err "adapters.code.steps is 5, the run began with 6: only a larger value"
refused --set adapters.code.data=other.h5
err "RUN-05: other.h5: the dataset has another content"
# What auto stands for follows the device; the configuration alone does not say what it was.
run 0 train calm.yaml --set output=runs/bf16 --set train.dtype=bf16 --set defaults.steps=2
for folder in runs/bf16/checkpoints/mb-*; do
    sed -i 's/dtype: bf16/dtype: auto/' "$folder/config.yaml"
    (cd "$folder" && sha256sum -- *.yaml *.h5 >SHA256SUMS)
done
run 2 train calm.yaml --set output=runs/bf16 --set defaults.steps=2 --resume
err "RUN-05: calm.yaml: train.dtype: auto is fp32 on this device, the run began with bf16"
finish "resume: bit for bit from checkpoints, after kill -9 and signals; other ranks; damage, a full disk, refusals"
