#!/usr/bin/env bash
# tests/faults/launch_run.sh CADRE CLI_DATASET: launch/run starts ranks, passes exit codes on, and ends them.
set -euo pipefail
cadre=$1 tool=$2
here=$(cd "$(dirname "$0")" && pwd)
# shellcheck source=tests/cli/expect.sh
. "$here/../cli/expect.sh"
run=$CADRE_SOURCE_DIR/launch/run

launched() { # launched CODE WORD...
    local want=$1 got=0
    shift
    words="(launch/run) $*"
    timeout 200 "$run" "$@" >out 2>err || got=$?
    if [ "$got" -ne "$want" ]; then fail "exit code $got, wanted $want"; fi
}
# begin NAME [WORD...]: a long run in the background, until it trains.
begin() {
    words="(launch/run, $1)"
    : >err # else the last run's is looked at
    bash "$run" -n 2 --cadre "$cadre" train run.yaml --set output="$dir/runs/$1" --set attention.placement=pool \
        --set defaults.steps=100000 "${@:2}" >out 2>err &
    launcher=$!
    await 150 grep -q '| step [1-9]' err || fail "it does not train"
}
ended() { # ended CODE
    local got=0 start=$(($(date +%s%N) / 1000000))
    wait "$launcher" || got=$?
    took=$(($(date +%s%N) / 1000000 - start))
    if [ "$got" -ne "$1" ]; then fail "exit code $got, wanted $1"; fi
    [ "$took" -le 60000 ] || fail "it ended after $took ms"
    await 60 none_left "$2" || fail "ranks are left" # a process that was killed may take its time to go
}
none_left() { ! pgrep -f "^$cadre train .*output=$dir/runs/$1" >/dev/null; }

golden_model llama
dataset code.h5 llama 1 40 50 60 70 >tool.out
cat >run.yaml <<'YAML'
model: llama
output: runs/x
batch:
  tokens_per_trainer: 512
defaults:
  steps: 3
  global_batch_documents: 2
  learning_rate: 1e-2
adapters:
  - name: code
    data: code.h5
YAML

launched 0 -n 3 --cadre "$cadre" train run.yaml --set output=runs/three --set attention.placement=pool
err "launch/run: 3 ranks on $(env -u OMP_NUM_THREADS nproc) cores"
[ -f runs/three/adapters/code/adapter_model.safetensors ] || fail "no adapter"
launched 0 --cadre "$cadre" train run.yaml --set output=runs/one
launched 2 -n 2 --cadre "$cadre" train run.yaml --set output=runs/three
errors 1
err 'RUN-01'
if grep -q -- '-----' err; then fail "mpirun speaks"; fi
# OpenBLAS makes no threads in ranks: they multiply on their own.
cat >told.sh <<'SH'
#!/bin/sh
echo "openblas $OPENBLAS_NUM_THREADS"
SH
chmod +x told.sh
for ranks in 1 2; do
    launched 0 -n $ranks --cadre ./told.sh train
    [ "$(grep -c '^openblas 1$' out)" -eq "$ranks" ] || fail "what its $ranks ranks are told"
done
launched 2 -n 2 --cadre "$cadre" score run.yaml
err 'score runs on one rank'
launched 2 -n two train run.yaml
launched 2
err 'no verb'
launched 2 --m 2 train run.yaml
err 'unknown option "--m"'
TMPDIR=/no/folder launched 3 -n 2 --cadre "$cadre" train run.yaml
err 'launch/run: no folder for the state of the ranks: '
launched 3 --cadre ./none train run.yaml
err './none: not there'

begin signalled
kill -TERM "$launcher"
ended 75 signalled
err 'launch/run: SIGTERM: saving within 4 microbatches'
err 'cadre: saved after microbatch'
ls runs/signalled/checkpoints/mb-*/gradients-0000.h5 >/dev/null || fail "no checkpoint"

[ "$(grep -c 'saving' err)" -eq 1 ] || fail "more than one line about saving"

# A batch system's warning; then the same command goes on from there.
begin warned
kill -USR1 "$launcher"
ended 75 warned
err 'launch/run: SIGUSR1: saving within 4 microbatches'
first=$(python3 -c 'import json; print(json.load(open("runs/warned/status.json"))["microbatch"])')
begin warned --resume
kill -USR1 "$launcher"
ended 75 warned
more=$(python3 -c 'import json; print(json.load(open("runs/warned/status.json"))["microbatch"])')
if [ "$first" -eq 0 ] || [ "$more" -le "$first" ]; then fail "$first microbatches, and then $more"; fi

# The terminal goes, and with it what read our words. Ranks in a session of their own must not stay behind.
words="(launch/run, hung up)"
env --default-signal=HUP bash "$run" -n 2 --cadre "$cadre" train run.yaml --set output="$dir/runs/hung_up" \
    --set defaults.steps=100000 --set train.checkpoint_every_microbatches=5 >out 2> >(exec true) &
launcher=$!
await 150 has_checkpoint runs/hung_up || fail "no checkpoint"
kill -HUP "$launcher"
ended 75 hung_up

# Ranks that do not come to a microbatch any more cannot save; a second one kills them.
begin killed
# shellcheck disable=SC2046  # each process is a word
kill -STOP $(pgrep -f "^$cadre train run.yaml --set output=$dir/runs/killed")
kill -TERM "$launcher"
await 60 grep -q 'saving' err || fail "the first is not taken" # the launcher takes one at a time
kill -TERM "$launcher"
ended 143 killed
err 'launch/run: SIGTERM again: killing all ranks'

# mpirun itself is ended, as a batch system does that sends SIGTERM to all: nothing can be saved. Ranks that are told to end
# get more than mpirun's second to note it, for a busy machine; launch/run gives mpirun five.
export OMPI_MCA_odls_base_sigkill_timeout=3
begin ended
kill -TERM "$(pgrep -P "$launcher" -x mpirun)"
ended 1 ended
! grep -q 'told to end' err || fail "more than one voice"
for rank in 0 1; do
    grep -qE "rank $rank \\((trainer|server) 0\\): told to end \\(SIGTERM\\) after [0-9]+ microbatches" runs/ended/logs/rank-000$rank.log || fail "the log of rank $rank"
done

begin dies
victim=$(pgrep -f "^$cadre train run.yaml --set output=$dir/runs/dies" | tail -1)
kill -9 "$victim"
ended 5 dies
named=$took
grep -qE "^launch/run: killed by signal 9: rank [01] \((trainer|server) 0, process $victim\), after [0-9]+ microbatches, (in layer [0-9] of (ping|pong)|between microbatches)(, waiting for rank [01])?$" err ||
    fail "it does not say which rank"
[ "$(grep -cE '^(launch/run|cadre|mpirun)' err)" -eq 2 ] || fail "more than one line about it"

# An mpirun that does not end although its ranks are gone, as after the death of one that was connecting to it.
mkdir stuck
cat >stuck/mpirun <<'SH'
#!/bin/sh
echo 'rank 0 (no role yet 0, process 4194305): at work after 0 microbatches' >"$CADRE_RANK_STATE/rank-0000"
echo 'rank 1 (no role yet 0, process 4194306): told to end (SIGTERM) after 0 microbatches' >"$CADRE_RANK_STATE/rank-0001"
sleep 300
SH
chmod +x stuck/mpirun
PATH=$dir/stuck:$PATH launched 5 -n 2 --cadre "$cadre" train run.yaml
err 'launch/run: mpirun did not end when all ranks had: rank 0 (no role yet 0, process 4194305), after 0 microbatches'
errors=$(grep -c . err)
[ "$errors" -eq 2 ] || fail "$errors lines on stderr"

finish "launch/run as wanted; a rank that was killed is named after $named ms, 3000 of them mpirun's, which is 1000 elsewhere"
