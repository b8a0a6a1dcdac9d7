#!/usr/bin/env bash
# tests/cli/cli_init_model.sh CADRE: model folders with random weights, and what is refused.
set -euo pipefail
cadre=$1
dir=$(mktemp -d)
trap 'rm -rf "$dir"' EXIT
cd "$dir"
failures=0

fail() { # fail TEXT
    printf 'cadre %s: %s\n' "$words" "$1"
    sed 's/^/    stdout: /' out
    sed 's/^/    stderr: /' err
    failures=$((failures + 1))
}

# expect CODE WORD...: runs cadre, checks the exit code and that stdout is empty on failure and stderr on success.
expect() {
    local want=$1 got=0
    shift
    words=$*
    "$cadre" "$@" >out 2>err || got=$?
    if [ "$got" -ne "$want" ]; then fail "exit code $got, wanted $want"; fi
    if [ "$want" -eq 0 ] && [ -s err ]; then fail "stderr is not empty"; fi
    if [ "$want" -ne 0 ] && [ -s out ]; then fail "stdout is not empty"; fi
}
err() { grep -qF -- "$1" err || fail "stderr has no $1"; }
same() { cmp -s "$1" "$2" || fail "$1 and $2 differ"; }
differ() { if cmp -s "$1" "$2"; then fail "$1 and $2 are equal"; fi; }

mkdir src
cat >src/config.json <<'JSON'
{"architectures": ["LlamaForCausalLM"], "model_type": "llama", "hidden_act": "silu", "hidden_size": 32,
 "intermediate_size": 48, "num_hidden_layers": 2, "num_attention_heads": 4, "num_key_value_heads": 2, "head_dim": 8,
 "vocab_size": 100, "max_position_embeddings": 64, "rms_norm_eps": 1e-05, "rope_theta": 10000.0,
 "tie_word_embeddings": true, "eos_token_id": 3, "bos_token_id": 1, "initializer_range": 0.05}
JSON
printf '{"a": 1}' >src/tokenizer.json
printf '{{ messages }}' >src/chat_template.jinja
printf 'not a part of a model' >src/README.md

expect 0 init-model src/config.json a --seed 7
# 100*32 + 32 + 2 * (2*32*32 + 2*16*32 + 3*32*48 + 2*32) = 18720
grep -qxF 'a: llama, 2 layers, 18720 parameters in F32, deviation 0.05, seed 7' out || fail "stdout has no such line"
for file in tokenizer.json chat_template.jinja; do same src/$file a/$file; done
[ "$(find a -type f | wc -l)" -eq 4 ] || fail "a holds other files"
for key in '"bos_token_id": 1,' '"eos_token_id": 3,' '"initializer_range": 0.05,' '"torch_dtype": "float32",'; do
    grep -qF "$key" a/config.json || fail "a/config.json has no $key"
done
[ ! -e a.tmp-0000 ] || fail "the temporary folder is left"

# The same seed gives the same file, also from the folder's own config.json and into an empty folder.
mkdir b
expect 0 init-model --seed=7 a/config.json b/
same a/model.safetensors b/model.safetensors
same a/config.json b/config.json
expect 0 init-model src/config.json c --seed 8
differ a/model.safetensors c/model.safetensors
expect 0 init-model src/config.json new/parent/d --seed 7 --dtype bf16
grep -qF '"torch_dtype": "bfloat16"' new/parent/d/config.json || fail "no bfloat16"
[ "$(stat -c %s new/parent/d/model.safetensors)" -lt "$(stat -c %s a/model.safetensors)" ] || fail "bf16 is not smaller"

# The folder is left alone, whatever is in it.
expect 2 init-model src/config.json a --seed 9
err 'cadre: error DATA-16: a: the folder is not empty'
same a/model.safetensors b/model.safetensors
expect 2 init-model src/config.json src/tokenizer.json --seed 9
err 'cadre: error DATA-16: src/tokenizer.json: a file stands where the folder should be'

expect 2 init-model
err 'cadre: error CLI-02: init-model: CONFIG.json is missing'
expect 2 init-model src/config.json
err 'cadre: error CLI-02: init-model: DIR is missing'
expect 2 init-model src/config.json e
err 'cadre: error CLI-02: init-model: --seed N is missing'
expect 2 init-model src/config.json e f --seed 1
err 'cadre: error CLI-02: init-model: unexpected argument "f"'
for seed in -1 x 1.5 '' 18446744073709551616; do
    expect 2 init-model src/config.json e --seed "$seed"
    err "cadre: error CLI-02: --seed: found \"$seed\", wanted a whole number"
done
expect 2 init-model src/config.json e --seed
err 'cadre: error CLI-02: --seed: value is missing'
expect 2 init-model src/config.json e --seed 1 --dtype f16
err 'cadre: error CLI-02: --dtype: found "f16", wanted f32 or bf16'
expect 2 init-model src/config.json e --sed 1
err 'cadre: error CLI-02: unknown option "--sed"; nearest is "--seed"'

# Faults of config.json: one, all at once, none that can be read.
expect 3 init-model src/none.json e --seed 1
err 'cadre: error IO-01: src/none.json: cannot open: No such file or directory'
expect 3 init-model src/README.md e --seed 1
err 'cadre: error DATA-02: src/README.md'
sed 's/"silu"/"gelu"/' src/config.json >one.json
expect 3 init-model one.json e --seed 1
err 'cadre: error DATA-05: one.json: "hidden_act": is "gelu"'
sed 's/"silu"/"gelu"/; s/"vocab_size": 100,//' src/config.json >two.json
expect 3 init-model two.json e --seed 1
err 'cadre: error DATA-03: two.json: "vocab_size"'
err 'cadre: error DATA-05: two.json: "hidden_act": is "gelu"'
[ "$(grep -c 'error' err)" -eq 2 ] || fail "stderr does not have two errors"
[ ! -e e ] || fail "a folder was left"

# Nowhere to write.
printf 'x' >plain
expect 3 init-model src/config.json plain/e --seed 1
err 'cadre: error IO-02: plain'
# Files may not grow to what is wanted: an error like a full disk's, not death by a signal.
before=$(ulimit -f)
ulimit -S -f 8
expect 4 init-model src/config.json e --seed 1
ulimit -S -f "$before"
err 'cadre: error IO-02: e.tmp-0000/model.safetensors: cannot write: File too large'
if [ -e e ] || [ -e e.tmp-0000 ]; then fail "a folder was left"; fi

if [ "$failures" -ne 0 ]; then
    echo "$failures failures"
    exit 1
fi
echo "all folders as wanted"
