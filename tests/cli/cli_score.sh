#!/usr/bin/env bash
# tests/cli/cli_score.sh CADRE CLI_DATASET: losses of golden models against what transformers and PEFT found, and what is
# refused.
set -euo pipefail
cadre=$1 tool=$2
here=$(cd "$(dirname "$0")" && pwd)
# shellcheck source=tests/cli/expect.sh
. "$here/expect.sh"

# ==== right numbers: golden/README.md has where they come from; fp32 leaves 1e-4 ====

for family in llama qwen3; do
    golden_model $family
    dataset $family.h5 $family --golden $family narrow >$family.txt
    [ -s $family.h5 ] || { echo "no dataset"; exit 1; }
    wanted=$(awk '{ n += $2; a += $2 * $3; b += $2 * $4 } END { printf "%.17g %.17g %d", a / n, b / n, n }' $family.txt)
    read -r adapted base supervised <<<"$wanted"
    expect 0 score --model $family --data $family.h5 --json
    near "$(number loss)" "$base" 1e-4
    [ "$(number supervised_tokens)" = "$supervised" ] || fail "not $supervised supervised tokens"
    [ "$(number documents)" = "$(wc -l <$family.txt)" ] || fail "another number of documents"
    expect 0 score --model $family --adapter "$golden/$family/narrow" --data $family.h5 --json
    near "$(number loss)" "$adapted" 1e-4
    near "$(number perplexity)" "$(awk -v l="$adapted" 'BEGIN { print exp(l) }')" 1e-3
done

# Document by document, also when each microbatch holds few of them.
for tokens in 512 8192; do
    expect 0 score --model llama --adapter "$golden/llama/narrow" --data llama.h5 --per-document --json --tokens $tokens
    python3 - <<'PY' || fail "losses of documents"
import json

found = json.load(open("out"))["per_document"]
wanted = [line.split() for line in open("llama.txt")]
assert len(found) == len(wanted)
for i, (row, want) in enumerate(zip(found, wanted)):
    assert row["document"] == i and row["line"] == i + 1
    assert row["tokens"] == int(want[0]) and row["supervised_tokens"] == int(want[1])
    assert abs(row["loss"] - float(want[2])) <= 1e-4 * float(want[2]), (row, want)
PY
done
expect 0 score --model llama --data llama.h5 --per-document
out '^document      line    tokens  supervised      loss$'
out '^ +0 +1 +[0-9]+ +[0-9]+ +[0-9]\.[0-9]+$'
out '^loss               [0-9.]+ nats per supervised token$'
out '^data               llama.h5$'

# ==== what is refused ====

expect 2 score --data llama.h5
err 'cadre: error CLI-02: score: --model DIR is missing'
expect 2 score --model llama
err 'cadre: error CLI-02: score: --data FILE.h5 is missing'
expect 2 score --model llama --data llama.h5 --per-dokument
err 'nearest is "--per-document"'
expect 2 score --model llama --data llama.h5 --tokens 0
err 'CLI-02: --tokens: found "0", wanted a whole number from 1'
expect 2 score --model llama --data llama.h5 --device gpu
err "wanted cpu or cuda"
if "$cadre" --version | grep -q "^cuda  *not in this build"; then
    expect 3 score --model llama --data llama.h5 --device cuda
    err "DEV-01"
fi
expect 2 score --model llama --data llama.h5 again
err 'CLI-02: score: unexpected argument "again"'

expect 3 score --model llama --data none.h5
err 'cadre: error IO-01: none.h5'
expect 3 score --model none --data llama.h5
err 'none'
errors 1

# A dataset of another tokenizer; a model folder without any.
expect 3 score --model llama --data qwen3.h5
err 'cadre: error DATA-13: qwen3.h5'
rm qwen3/tokenizer.json
expect 3 score --model qwen3 --data qwen3.h5
err 'cadre: error DATA-30: qwen3/tokenizer.json'

# An adapter of another base.
expect 3 score --model llama --adapter "$golden/qwen3/narrow" --data llama.h5
err "DATA-45: $golden/qwen3/narrow"

# A model whose weights hold a NaN: no mean, in text or JSON, but where it was found. Trained on, an adapter cannot even
# make its first step.
cp -r llama nan
python3 - <<'PY'
import json, struct
data = bytearray(open("nan/model.safetensors", "rb").read())
size = struct.unpack("<Q", data[:8])[0]
at = 8 + size + json.loads(data[8 : 8 + size])["model.norm.weight"]["data_offsets"][0]
data[at : at + 4] = struct.pack("<f", float("nan"))
open("nan/model.safetensors", "wb").write(data)
PY
expect 3 score --model nan --data llama.h5
err 'cadre: error DATA-17: llama.h5: document 0 (line 1 of its JSONL) has loss nan with nan'
expect 3 score --model nan --data llama.h5 --json
cat >nan.yaml <<'YAML'
model: nan
output: runs/nan
batch: {tokens_per_trainer: 1024}
defaults: {steps: 2, learning_rate: 1e-3, data: llama.h5}
adapters: [{name: legal}]
YAML
words="train nan.yaml" got=0
"$cadre" train nan.yaml >out 2>err || got=$?
[ "$got" -eq 5 ] || fail "exit code $got, wanted 5"
err 'cadre: error RUN-09: legal: the gradient of step 1 is not finite, so it is not trained further; it is exported as it began'

# Everything in one pass: an adapter that is none, a dataset that is none.
mkdir empty
echo text >text.h5
expect 3 score --model llama --adapter empty --data text.h5
err 'DATA-40: empty'
err 'DATA-11: text.h5'
errors 2

finish "all scores as wanted"
