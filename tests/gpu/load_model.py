#!/usr/bin/env python3
"""load_model.py DIR [--layers N]: a model folder of Llama-3.1-8B's shape in bf16 with random weights, in files of a layer each,
for `cadre bench load`. Needs torch and safetensors."""

import argparse
import json
import pathlib

import torch
from safetensors.torch import save_file

HIDDEN, INTERMEDIATE, VOCAB, KV = 4096, 14336, 128256, 1024
CONFIG = {
    "architectures": ["LlamaForCausalLM"], "model_type": "llama", "hidden_size": HIDDEN, "intermediate_size": INTERMEDIATE,
    "vocab_size": VOCAB, "num_attention_heads": 32, "num_key_value_heads": 8, "head_dim": 128, "max_position_embeddings": 8192,
    "rms_norm_eps": 1e-5, "rope_theta": 500000.0, "tie_word_embeddings": False, "torch_dtype": "bfloat16", "hidden_act": "silu",
    "attention_bias": False, "mlp_bias": False, "bos_token_id": 0, "eos_token_id": 1,
}  # fmt: skip


def layer_shapes(layer):
    name = f"model.layers.{layer}."
    yield name + "input_layernorm.weight", (HIDDEN,)
    yield name + "post_attention_layernorm.weight", (HIDDEN,)
    for part, rows, cols in (("self_attn.q", HIDDEN, HIDDEN), ("self_attn.k", KV, HIDDEN), ("self_attn.v", KV, HIDDEN),
                             ("self_attn.o", HIDDEN, HIDDEN), ("mlp.gate", INTERMEDIATE, HIDDEN),
                             ("mlp.up", INTERMEDIATE, HIDDEN), ("mlp.down", HIDDEN, INTERMEDIATE)):  # fmt: skip
        yield f"{name}{part}_proj.weight", (rows, cols)


def main():
    parser = argparse.ArgumentParser()
    parser.add_argument("folder", type=pathlib.Path)
    parser.add_argument("--layers", type=int, default=8)
    args = parser.parse_args()
    outer = [[("model.embed_tokens.weight", (VOCAB, HIDDEN))],
             [("lm_head.weight", (VOCAB, HIDDEN)), ("model.norm.weight", (HIDDEN,))]]  # fmt: skip
    files = outer + [list(layer_shapes(layer)) for layer in range(args.layers)]
    device = "cuda" if torch.cuda.is_available() else "cpu"
    index = {}
    args.folder.mkdir(parents=True, exist_ok=True)
    for number, shapes in enumerate(files, 1):
        name = f"model-{number:05}-of-{len(files):05}.safetensors"
        tensors = {
            key: (torch.randn(shape, device=device, dtype=torch.bfloat16) / shape[-1] ** 0.5).cpu() for key, shape in shapes
        }
        save_file(tensors, args.folder / name, metadata={"format": "pt"})
        index.update({key: name for key in tensors})
        print(name, flush=True)
    (args.folder / "model.safetensors.index.json").write_text(json.dumps({"metadata": {}, "weight_map": index}))
    (args.folder / "config.json").write_text(json.dumps({**CONFIG, "num_hidden_layers": args.layers}, indent=1))


if __name__ == "__main__":
    main()
