#!/usr/bin/env bash
# tests/cli/cli_verify.sh CADRE CLI_DATASET: adapters that fit and work, that do nothing (users' complaint 18), and that
# do not fit (complaint 14).
set -euo pipefail
cadre=$1 tool=$2
here=$(cd "$(dirname "$0")" && pwd)
# shellcheck source=tests/cli/expect.sh
. "$here/expect.sh"

golden_model llama
cp -r "$golden/llama/narrow" code
cp -r "$golden/llama/wide" wide
dataset llama.h5 llama 3 300 20 >dataset.txt

expect 0 verify --model llama --adapter code
out '^fits: 12 tensors, [0-9]+ parameters, rank 8, names and shapes as in the base$'
out '^q_proj +2 +0 +[0-9.e-]+$'
out '^logits over 64 rows of random tokens$'
out '^yes: the adapter changes the model'
# users' complaint 15: the exact line
out '^  vllm serve llama --enable-lora --max-lora-rank 8 --lora-modules code=code$'
out '^  python3 -m sglang.launch_server --model-path llama --enable-lora --max-lora-rank 8 --lora-target-modules q_proj v_proj down_proj --lora-paths code=code$'
expect 0 verify --model llama --adapter wide/
out 'SGLang ignores use_rslora'
out ' --max-lora-rank 8 --lora-modules wide=wide/$'

expect 0 verify --model llama --adapter code --data llama.h5 --json
[ "$(number changes)" = True ] || fail "changes nothing"
[ "$(number rows)" = 256 ] || fail "not 256 rows"
python3 -c 'import json; f = json.load(open("out"))
assert f["max_difference"] > f["mean_difference"] > 0 and set(f["targets"]) == {"q_proj", "v_proj", "down_proj"}' ||
    fail "numbers"
cp out first
expect 0 verify --model llama --adapter code --data llama.h5 --json
cmp -s first out || fail "another answer the second time"

# Complaint 18: all of B is zero. The header stays, so only the file knows.
cp -r code idle
python3 - idle/adapter_model.safetensors <<'PY'
import json, struct, sys

path = sys.argv[1]
data = bytearray(open(path, "rb").read())
size = struct.unpack("<Q", data[:8])[0]
for name, entry in json.loads(data[8 : 8 + size]).items():
    if "lora_B" in name:
        begin, end = entry["data_offsets"]
        data[8 + size + begin : 8 + size + end] = bytes(end - begin)
open(path, "wb").write(data)
PY
expect 1 verify --model llama --adapter idle
out '^no: the adapter does nothing; every logit is the base'
out '^q_proj +2 +2 +0$'
grep -q vllm out && fail "serves an adapter that does nothing"
expect 1 verify --model llama --adapter idle --json
[ "$(number changes)" = False ] || fail "changes something"
[ "$(number max_difference)" = 0.0 ] || [ "$(number max_difference)" = 0 ] || fail "differs"

# Complaint 14: names that the base does not have; shapes of another base.
cp -r code renamed
sed -i 's/layers\.1\.self_attn\.q_proj\.lora/layers.7.self_attn.q_proj.lora/g' renamed/adapter_model.safetensors
expect 3 verify --model llama --adapter renamed
err 'DATA-44: renamed/adapter_model.safetensors'
golden_model qwen3
expect 3 verify --model qwen3 --adapter code
err 'DATA-4'
expect 3 verify --model llama --adapter llama
err 'cadre: error DATA-40: llama'

# A value that is not finite.
cp -r code broken
printf '\xff\xff\xff\xff' | dd of=broken/adapter_model.safetensors bs=1 conv=notrunc seek=$(($(stat -c %s code/adapter_model.safetensors) - 4)) 2>/dev/null
expect 3 verify --model llama --adapter broken
err 'DATA-47: '

expect 2 verify --model llama
err 'cadre: error CLI-02: verify: --adapter DIR is missing'
expect 2 verify --adapter code
err 'cadre: error CLI-02: verify: --model DIR is missing'
expect 2 verify --model llama --adapter code --jsn
err 'nearest is "--json"'

finish "all adapters judged as wanted"
