#!/usr/bin/env bash
# tests/cli/cli_export.sh CADRE CLI_DATASET: adapters and models of small runs in another folder and form.
set -euo pipefail
cadre=$1 tool=$2
here=$(cd "$(dirname "$0")" && pwd)
# shellcheck source=tests/cli/expect.sh
. "$here/expect.sh"
same() { cmp -s "$1" "$2" || fail "$1 and $2 differ"; }
# A tensor file's numbers: changed A B prints the largest |a - b| over the largest |a|.
cat >changed.py <<'PY'
import array, json, struct, sys

def read(path):
    data = open(path, "rb").read()
    size = struct.unpack("<Q", data[:8])[0]
    found = {}
    for name, entry in json.loads(data[8 : 8 + size]).items():
        if name == "__metadata__":
            continue
        raw = data[8 + size + entry["data_offsets"][0] : 8 + size + entry["data_offsets"][1]]
        if entry["dtype"] == "BF16":
            raw = b"".join(b"\0\0" + raw[i : i + 2] for i in range(0, len(raw), 2))
        found[name] = array.array("f", raw)
    return found

a, b = read(sys.argv[1]), read(sys.argv[2])
assert a.keys() == b.keys()
part = sys.argv[3] if len(sys.argv) > 3 else ""
factor = float(sys.argv[4]) if len(sys.argv) > 4 else 1.0
worst = 0.0
for name in a:
    if part not in name:
        continue
    top = max(abs(x) for x in a[name])
    worst = max(worst, max(abs(x - factor * y) for x, y in zip(a[name], b[name])) / top)
print(worst)
PY

golden_model llama
dataset code.h5 llama 1 40 50 60 70 >code.txt
cat >two.yaml <<'YAML'
model: llama
output: runs/two
batch:
  tokens_per_trainer: 512
defaults:
  steps: 3
  global_batch_documents: 2
  learning_rate: 1e-2
adapters:
  - name: code
    data: code.h5
    rank: 8
    alpha: 6
    rslora: true
  - name: legal
    data: code.h5
    rank: 4
YAML
"$cadre" train two.yaml >out 2>err || { cat err; exit 1; }

# ==== portable: the run's own bytes again, from anywhere ====

expect 0 export runs/two --adapter code -o new/code
out '^new/code: adapter code, rank 8, [0-9]+ parameters, portable form$'
same runs/two/adapters/code/adapter_model.safetensors new/code/adapter_model.safetensors
same runs/two/adapters/code/adapter_config.json new/code/adapter_config.json
grep -q 'trained with alpha 6 and rsLoRA' new/code/README.md || fail "README.md"
mkdir elsewhere
pushd elsewhere >/dev/null
expect 0 export ../runs/two/ --adapter legal -o legal
mv out err .. && popd >/dev/null
same runs/two/adapters/legal/adapter_model.safetensors elsewhere/legal/adapter_model.safetensors

# ==== faithful: alpha 6, rsLoRA; B is smaller by 6 / sqrt(8), rounded twice ====

expect 0 export runs/two --adapter code -o new/faithful --faithful
out 'alpha and scale as trained$'
grep -qE '"lora_alpha": 6(\.0)?,' new/faithful/adapter_config.json || fail "alpha is not 6"
grep -qE '"use_rslora": true' new/faithful/adapter_config.json || fail "not rsLoRA"
b=$(python3 changed.py new/code/adapter_model.safetensors new/faithful/adapter_model.safetensors lora_B 2.1213203435596424)
python3 -c "import sys; sys.exit(not 0 <= $b < 1.2e-7)" || fail "B differs by $b"
a=$(python3 changed.py new/code/adapter_model.safetensors new/faithful/adapter_model.safetensors lora_A)
[ "$a" = 0.0 ] || fail "A differs by $a"
# and the same logits either way (users' complaint 19)
expect 0 score --model llama --adapter new/code --data code.h5 --json
loss=$(number loss)
expect 0 score --model llama --adapter new/faithful --data code.h5 --json
near "$(number loss)" "$loss" 1e-6

# ==== what is refused ====

expect 2 export runs/two -o new/x
err 'cadre: error RUN-04: runs/two: has several adapters, and --adapter names none; there is code, legal'
expect 2 export runs/two --adapter cod -o new/x
err 'cadre: error RUN-04: runs/two: no adapter "cod" in this run; there is code, legal'
mv runs/two/adapters/legal kept
expect 2 export runs/two --adapter legal -o new/x
err 'RUN-04: runs/two: adapter "legal" has not ended yet; there is code'
expect 2 export llama -o new/x
err 'cadre: error RUN-04: llama: has no run.json: not the folder of a run'
expect 2 export runs/two --adapter code -o new/x --dtype bf16
err 'CLI-02: --dtype: adapters are exported in f32'
expect 2 export runs/two --adapter code -o new/x --dtype f16
err 'CLI-02: --dtype: found "f16", wanted f32 or bf16'
expect 2 export runs/two --adapter code
err 'CLI-02: export: -o DIR is missing'
expect 2 export -o x
err 'CLI-02: export: RUN_FOLDER is missing'
expect 2 export runs/two --adaptor code -o x
err 'nearest is "--adapter"'
expect 2 export runs/two --adapter code -o llama
err 'cadre: error DATA-48: llama'
[ ! -e new/x ] || fail "a folder was left"
mv llama moved
expect 3 export runs/two --adapter code -o new/x
err 'llama'
mv moved llama

# ==== a model ====

cat >full.yaml <<'YAML'
model: llama
output: runs/full
data: code.h5
batch:
  tokens_per_trainer: 512
train:
  mode: full
defaults:
  steps: 2
  global_batch_documents: 2
  learning_rate: 1e-3
YAML
"$cadre" train full.yaml >out 2>err || { cat err; exit 1; }
expect 0 export runs/full -o new/model
same runs/full/model/model.safetensors new/model/model.safetensors
same llama/tokenizer.json new/model/tokenizer.json
expect 0 export runs/full -o new/half --dtype bf16
out '^new/half: llama, [0-9]+ parameters in BF16$'
b=$(python3 changed.py new/model/model.safetensors new/half/model.safetensors)
python3 -c "import sys; sys.exit(not 0 < $b <= 2.0**-8)" || fail "weights differ by $b"
expect 2 export runs/full -o new/half
err 'cadre: error DATA-16: new/half'
expect 2 export runs/full -o new/x --adapter code
err 'CLI-02: --adapter: runs/full trained the model itself, not adapters'
expect 2 export runs/full -o new/x --faithful
err 'CLI-02: --faithful: runs/full trained the model itself'
mv runs/full/model kept-model
expect 2 export runs/full -o new/x
err 'RUN-04: runs/full: has no model yet'

finish "all exports as wanted"
