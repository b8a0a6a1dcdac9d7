#!/usr/bin/env bash
# tests/faults/mpi_resume.sh CADRE CLI_DATASET MPIEXEC: checkpoints of a pool of processes. Each trainer saves its part of
# the gradients; after SIGUSR1, and after kill -9 of one rank, --resume has the bits of a run that was left alone; a rank
# that cannot write is everyone's warning.
set -euo pipefail
cadre=$1 tool=$2 mpiexec=$3
here=$(cd "$(dirname "$0")" && pwd)
# shellcheck source=tests/cli/expect.sh
. "$here/../cli/expect.sh"
: >out
: >err
quick=(-q --oversubscribe --mca odls_base_sigkill_timeout 0)
pool=(--set attention.placement=pool)

same() { python3 "$here/../cli/same_run.py" "$@" || fail "not the same"; }
state() { python3 -c 'import json,sys; print(json.load(open(sys.argv[1] + "/status.json"))["state"])' "$1"; }
mpi() { # mpi CODE N WORD...
    local want=$1 ranks=$2 got=0
    shift 2
    words="(on $ranks ranks) $*"
    timeout 200 "$mpiexec" "${quick[@]}" -np "$ranks" "$cadre" "$@" >out 2>err || got=$?
    if [ "$got" -ne "$want" ]; then fail "exit code $got, wanted $want"; fi
}
begin() { # begin NAME: the long run in the background
    "$mpiexec" "${quick[@]}" -np 3 "$cadre" train run.yaml "${pool[@]}" --set output="runs/$1" >out 2>err &
    pid=$!
}
send_usr1() { kill -USR1 "$1"; }
kill_a_rank() { kill -9 "$(pgrep -P "$1" -f ' train run.yaml ' | tail -1)"; }

golden_model llama
dataset code.h5 llama 1 40 50 60 70 300 200 >tool.out
dataset eval.h5 llama 2 40 50 >tool.out
cat >run.yaml <<'YAML'
model: llama
output: runs/x
batch:
  tokens_per_trainer: 256
train:
  checkpoint_every_microbatches: 5
defaults:
  steps: 30
  global_batch_documents: 4
  learning_rate: 1e-3
adapters:
  - name: code
    data: code.h5
    rank: 8
    dropout: 0.1
  - name: stops                # early: it only gets worse
    data: code.h5
    eval: eval.h5
    eval_every_steps: 2
    early_stopping_patience: 2
    learning_rate: 1
    rank: 4
YAML

mpi 0 3 train run.yaml "${pool[@]}" --set output=runs/whole
grep -q 'stops: stopped early' err || fail "nothing stopped early"

interrupted 75 runs/signal send_usr1 begin signal
[ "$(state runs/signal)" = saved ] || fail "state $(state runs/signal)"
[ "$(grep -c 'saving within 4 microbatches' err)" -eq 1 ] || fail "not one line"
last=$(checkpoints runs/signal | tail -n 1)
for trainer in 0 1; do
    [ -f "runs/signal/checkpoints/$last/gradients-000$trainer.h5" ] || fail "no gradients of trainer $trainer"
done
(cd "runs/signal/checkpoints/$last" && sha256sum --quiet -c SHA256SUMS) || fail "sha256sum"
cp -r runs/signal runs/fewer
mpi 0 3 train run.yaml "${pool[@]}" --set output=runs/signal --resume
same runs/whole runs/signal
# In place, on as many trainers, there are other plans and the same bits.
cp -r runs/fewer runs/in_place
mpi 0 2 train run.yaml --set output=runs/in_place --resume
same runs/whole runs/in_place

interrupted 137 runs/killed kill_a_rank begin killed
mpi 0 3 train run.yaml "${pool[@]}" --set output=runs/killed --resume
same runs/whole runs/killed

# Rank 1 may write files of 40 KiB only, less than its part of the gradients.
cat >narrow.sh <<'SH'
if [ "$OMPI_COMM_WORLD_RANK" = 1 ]; then ulimit -f 40; fi
exec "$@"
SH
words="(rank 1 without room)"
timeout 200 "$mpiexec" "${quick[@]}" --mca btl self,tcp -np 3 bash narrow.sh "$cadre" train run.yaml "${pool[@]}" \
    --set output=runs/narrow --set train.transport=mpi >out 2>err || fail "exit code $?"
err 'RUN-07: checkpoint after microbatch'
err 'tmp/gradients-0001.h5: cannot write: File too large'
same runs/whole runs/narrow

mpi 0 3 train run.yaml "${pool[@]}" --set output=runs/refused --set train.checkpoint_every_microbatches=1000
mpi 2 3 train run.yaml "${pool[@]}" --set output=runs/refused --set adapters.code.seed=5 --resume
errors 1
err 'RUN-05: run.yaml: adapters.code.seed is 5, the run began with 0'
finish "checkpoints of processes: bit for bit after a signal and after kill -9"
