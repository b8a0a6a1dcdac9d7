#!/usr/bin/python3
"""Adapters that PEFT wrote, with what they change. For machines with torch, transformers and peft; no part of the test
run.

    tests/clients/peft_writes.py BASE OUT

Writes for BASE, a Llama-like Hugging Face folder, three adapters with random A and B, and with each of them delta.json:
{module: Frobenius norm of delta W in double}, which `cadre verify` has to find as well.

    OUT/plain      q_proj and v_proj, r 4, alpha 8
    OUT/rslora     all linears, r 8, alpha 6, use_rslora
    OUT/patterns   q_proj, o_proj, up_proj with ranks and alphas by pattern"""

import json
import os
import sys

import torch
from peft import LoraConfig, get_peft_model
from transformers import AutoModelForCausalLM

LINEARS = ["q_proj", "k_proj", "v_proj", "o_proj", "gate_proj", "up_proj", "down_proj"]
CONFIGS = {
    "plain": {"r": 4, "lora_alpha": 8, "target_modules": ["q_proj", "v_proj"]},
    "rslora": {"r": 8, "lora_alpha": 6, "target_modules": LINEARS, "use_rslora": True},
    "patterns": {
        "r": 4,
        "lora_alpha": 8,
        "target_modules": ["q_proj", "o_proj", "up_proj"],
        "rank_pattern": {"layers.0.self_attn.q_proj": 2, "^model.layers.1.mlp.up_proj": 3},
        "alpha_pattern": {"up_proj": 5, r"layers\.1\.self_attn\.o_proj": 12, "self_attn.o_proj": 2},
    },
}


def main():
    if len(sys.argv) != 3:
        print(__doc__)
        sys.exit(2)
    torch.manual_seed(1)
    for name, config in CONFIGS.items():
        base = AutoModelForCausalLM.from_pretrained(sys.argv[1]).float()
        model = get_peft_model(base, LoraConfig(task_type="CAUSAL_LM", **config))
        deltas = {}
        for path, module in model.named_modules():
            if "default" not in getattr(module, "lora_A", {}):
                continue
            a, b = module.lora_A["default"].weight, module.lora_B["default"].weight
            torch.nn.init.normal_(a)
            torch.nn.init.normal_(b)
            delta = module.scaling["default"] * (b.detach().double() @ a.detach().double())
            deltas[path.removeprefix("base_model.model.")] = delta.norm().item()
        folder = os.path.join(sys.argv[2], name)
        model.save_pretrained(folder)
        with open(os.path.join(folder, "delta.json"), "w", encoding="utf-8") as file:
            json.dump(deltas, file, indent=1, sort_keys=True)
        print(folder, len(deltas), "modules")


if __name__ == "__main__":
    main()
