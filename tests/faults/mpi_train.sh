#!/usr/bin/env bash
# tests/faults/mpi_train.sh CADRE CLI_DATASET MPIEXEC: `cadre train` as processes under mpirun: what it learns has the
# bits of threads wherever attention is computed, an error is said once, and a rank that dies ends all, by name.
set -euo pipefail
cadre=$1 tool=$2 mpiexec=$3
here=$(cd "$(dirname "$0")" && pwd)
# shellcheck source=tests/cli/expect.sh
. "$here/../cli/expect.sh"

# After a failure mpiexec gives the other ranks a second before it kills them; they need none, they have ended.
quick=(-q --oversubscribe --mca odls_base_sigkill_timeout 0)

# mpi CODE N WORD...: as expect, on N processes.
mpi() {
    local want=$1 ranks=$2 got=0
    shift 2
    words="(on $ranks ranks) $*"
    timeout 200 "$mpiexec" "${quick[@]}" -np "$ranks" "$cadre" "$@" >out 2>err || got=$?
    if [ "$got" -ne "$want" ]; then fail "exit code $got, wanted $want"; fi
}
threads() { # threads N WORD...
    words="(on $1 threads) ${*:2}"
    "$cadre" "${@:2}" --threads "$1" >out 2>err || fail "exit code $?"
}
same() { # same A B: the same adapters
    for name in code stops; do
        cmp -s "$1/adapters/$name/adapter_model.safetensors" "$2/adapters/$name/adapter_model.safetensors" ||
            fail "$1 and $2: adapter $name differs"
    done
}
state() { python3 -c 'import json,sys; print(json.load(open(sys.argv[1] + "/status.json"))["state"])' "$1"; }

golden_model llama
dataset code.h5 llama 1 40 50 60 70 300 200 >tool.out
dataset eval.h5 llama 2 40 50 >tool.out
cat >run.yaml <<'YAML'
model: llama
output: runs/x
batch:
  tokens_per_trainer: 512
defaults:
  steps: 6
  global_batch_documents: 2
  learning_rate: 1e-2
adapters:
  - name: code
    data: code.h5
    rank: 8
    dropout: 0.1
  - name: stops                # early: it only gets worse
    data: code.h5
    eval: eval.h5
    eval_every_steps: 1
    early_stopping_patience: 2
    learning_rate: 1
    steps: 50
    rank: 4
YAML

# ==== the same bits ====

threads 2 train run.yaml --set output=runs/threads
mpi 0 2 train run.yaml --set output=runs/in_place --set train.transport=mpi
grep -q 'rank 1 of 2 over mpi' runs/in_place/logs/rank-0001.log || fail "the log of rank 1"
same runs/threads runs/in_place
mpi 0 3 train run.yaml --set output=runs/pool --set attention.placement=pool
same runs/threads runs/pool
[ "$(grep -c 'stops: stopped early' err)" -eq 1 ] || fail "one line about the adapter that stops early"
[ "$(grep -c '^adapter .*last loss' out)" -eq 1 ] || fail "more than one rank prints the table"
for rank in 0 1 2; do
    [ -f runs/pool/logs/rank-000$rank.log ] || fail "no log of rank $rank"
done
grep -q 'rank 2 of 3 over copy_engine' runs/pool/logs/rank-0002.log || fail "the log of rank 2"
[ "$(state runs/pool)" = "done" ] || fail "state $(state runs/pool)"
threads 1 train run.yaml --set output=runs/one
mpi 0 1 train run.yaml --set output=runs/mpi_one
same runs/one runs/mpi_one

# ==== a quarantined adapter, beside one that goes on (exit 5, the others exported) ====

cat >broken.yaml <<'YAML'
model: llama
output: runs/x
attention:
  placement: pool
batch:
  tokens_per_trainer: 512
defaults:
  steps: 6
  global_batch_documents: 2
  learning_rate: 1e-2
adapters:
  - name: code
    data: code.h5
    rank: 8
    dropout: 0.1
  - name: broken
    data: code.h5
    rank: 4
    alpha: 1000000             # grows nine times a step
    learning_rate: 10
    weight_decay: 1
    steps: 80
YAML
mpi 5 2 train broken.yaml --set output=runs/broken
grep -q 'broken: not finite' err || fail "nothing about the adapter that broke"
[ -f runs/broken/adapters/code/adapter_model.safetensors ] || fail "the other adapter is missing"

# ==== a transport that cannot be (exit 3), said once ====

mpi 3 2 train run.yaml --set output=runs/none --set train.transport=nccl
errors 1
err "COMM-06: rank 0: transport nccl moves memory of GPUs, and these ranks have none"

# ==== an error is said once ====

mpi 2 3 train run.yaml --set adapters.code.rnak=3
errors 1
err 'CONF-03: --set adapters.code.rnak: unknown key' # in rank 0's words, whichever was the first to fail
mpi 2 2 train run.yaml --threads 2
errors 1
err 'CLI-02: --threads 2: mpirun has started 2 ranks already'
mpi 2 2 train none.yaml
errors 1
mpi 2 3 trian run.yaml
errors 1
err 'CLI-01: unknown verb "trian"; nearest is "train"'
mpi 2 2 help trian
errors 1
err 'CLI-01: unknown verb "trian"'
mpi 2 3 train run.yaml --hosts 2,2
errors 1
err 'CLI-02: --hosts: found "2,2", wanted the ranks of each host, such as 2,1 for 3 ranks'
mpi 2 2 train run.yaml --set output=runs/in_place
errors 1
err 'RUN-01'
mpi 3 3 train run.yaml --set output=runs/y --set adapters.code.data=none.h5
errors 1
err 'none.h5'
mpi 2 2 train run.yaml --set output=runs/z --set attention.placement=pool --set attention.servers_per_host=2
errors 1
err 'CONF-04'

# Rank 0 comes long after the others: it is awaited, and says it.
cat >late.sh <<'SH'
if [ "$OMPI_COMM_WORLD_RANK" = 0 ]; then sleep 6; fi
exec "$@"
SH
late() { # late CODE WORD...
    local want=$1 got=0
    shift
    words="(rank 0 late) $*"
    timeout 200 "$mpiexec" "${quick[@]}" -np 2 bash late.sh "$cadre" "$@" >out 2>err || got=$?
    if [ "$got" -ne "$want" ]; then fail "exit code $got, wanted $want"; fi
    errors 1
}
late 2 train run.yaml --threads 2
err 'CLI-02: --threads 2: mpirun has started 2 ranks already'

# ==== what only rank 1 finds reaches the terminal, in its words; ranks that differ are named ====

both() { # both CODE OPTION...: two ranks, the second one with other options
    local want=$1 got=0
    shift
    words="(rank 1 with $*)"
    timeout 200 "$mpiexec" "${quick[@]}" -np 1 "$cadre" train run.yaml --set output=runs/both : \
        -np 1 "$cadre" train run.yaml --set output=runs/both "$@" >out 2>err || got=$?
    if [ "$got" -ne "$want" ]; then fail "exit code $got, wanted $want"; fi
    errors 1
    rm -rf runs/both
}
both 2 --set adapters.code.rnak=3
err 'CONF-03: rank 1: --set adapters.code.rnak: unknown key'
both 3 --set adapters.code.data=none.h5
err 'IO-01: rank 1: none.h5'
both 2 --hosts 5
err 'CLI-02: rank 1: --hosts'
both 2 --threads 2
err 'CLI-02: rank 1: --threads 2: mpirun has started 2 ranks already'
both 2 --no-such-option
err 'CLI-02: rank 1: unknown option "--no-such-option"'
words="(rank 1 with another verb)"
got=0
timeout 200 "$mpiexec" "${quick[@]}" -np 1 "$cadre" train run.yaml --set output=runs/both : -np 1 "$cadre" trian \
    >out 2>err || got=$?
[ "$got" -eq 2 ] || fail "exit code $got, wanted 2"
errors 1
err 'CLI-01: rank 1: unknown verb "trian"'
rm -rf runs/both
both 5 --set adapters.code.global_batch_documents=3
err 'COMM-03: rank 1 has another configuration than rank 0'
err 'rank 0'
err 'rank 1'

# ==== the same names, other content: rank 1 works in a folder of its own ====

mkdir here there
for side in here there; do
    cp -r llama "$golden/llama/wide" code.h5 $side
    sed -e 's/^  - name: stops.*/  - name: goes_on\n    init: .\/wide\n    alpha: 6\n    rslora: true/' \
        -e '/eval/d;/patience/d;/steps: 50/d;s/: runs/: ..\/runs/' run.yaml >$side/run.yaml
done
apart() { # apart CODE WORD...
    local want=$1 got=0
    words="(rank 1 elsewhere: ${*:2})"
    timeout 60 "$mpiexec" "${quick[@]}" -np 1 -wdir "$dir/here" "$cadre" train run.yaml : \
        -np 1 -wdir "$dir/there" "$cadre" train run.yaml >out 2>err || got=$?
    if [ "$got" -ne "$want" ]; then fail "exit code $got, wanted $want"; fi
    rm -rf runs/x
}
apart 0 alike
dataset there/code.h5 llama 2 40 50 60 70 300 200 >tool.out # other tokens, documents of the same lengths
apart 5 tokens
errors 1
err 'COMM-03: rank 1 has other documents than rank 0'
cp code.h5 there
cp "$golden/llama/wide-final.safetensors" there/wide/adapter_model.safetensors
apart 5 init
errors 1
err 'COMM-03: rank 1 has other values of adapters to begin with (init) than rank 0'

# ==== the disk of one rank's log is full ====

mkdir -p runs/full/logs
ln -s /dev/full runs/full/logs/rank-0001.log
mpi 4 2 train run.yaml --set output=runs/full
errors 1
err 'IO-02: rank 1: runs/full/logs/rank-0001.log: cannot write to the log: No space left on device'

# ==== a rank dies: kill -9 ====

timeout 200 "$mpiexec" --oversubscribe -np 3 "$cadre" train run.yaml --set output=runs/dies \
    --set attention.placement=pool --set adapters.code.steps=100000 >out 2>err &
launcher=$!
words="(on 3 ranks, one killed)"
victim=
if await 150 grep -q '| step [1-9]' err; then # it trains
    victim=$(pgrep -P "$(pgrep -P $launcher | head -1)" -f 'train run.yaml' | tail -1)
fi
[ -n "$victim" ] || fail "no rank to kill"
start=$SECONDS
[ -z "$victim" ] || kill -9 "$victim"
got=0
wait "$launcher" || got=$?
[ "$got" -ne 0 ] || fail "exit code 0"
[ $((SECONDS - start)) -le 60 ] || fail "the others ended after $((SECONDS - start)) s"
grep -qE 'process rank [0-2] .*signal 9' err || fail "nobody names the rank"

finish "ranks over MPI as wanted"
