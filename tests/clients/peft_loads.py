#!/usr/bin/python3
"""Does PEFT load what was exported? For machines with torch, transformers and peft; no part of the test run.

    tests/clients/peft_loads.py BASE ADAPTER [ADAPTER...]

BASE is a Hugging Face folder, small enough for fp32 in memory; ADAPTER a folder that was exported for it. Checked of each
adapter: every tensor of the file arrives bit for bit in a module and every module gets its tensors; PEFT's scaling is
what adapter_config.json says; the weight with the adapter merged in is W + scaling B A; the logits change. Several
folders have to be one adapter in several forms (portable and faithful): the same change of every weight. Exit
status 1 at the first fault."""

import json
import math
import os
import sys

import torch
from peft import PeftModel
from safetensors.torch import load_file
from transformers import AutoModelForCausalLM

# Two fp32 roundings of a scale that is no power of two, and those of a product of rank terms.
RELATIVE = 1e-6


def fail(text):
    print("peft_loads:", text)
    sys.exit(1)


def base_of(path):
    return AutoModelForCausalLM.from_pretrained(path).float().eval()


def expected_scaling(config):
    alpha, rank = config["lora_alpha"], config["r"]
    return alpha / math.sqrt(rank) if config["use_rslora"] else alpha / rank


def modules_of(model):
    return {name: m for name, m in model.named_modules() if "default" in getattr(m, "lora_A", {})}


def check_tensors(folder, model, scaling):
    """Compares modules and file; returns {module: delta W}."""
    left = load_file(os.path.join(folder, "adapter_model.safetensors"))
    deltas = {}
    for name, module in modules_of(model).items():
        for half, layer in (("lora_A", module.lora_A["default"]), ("lora_B", module.lora_B["default"])):
            key = f"{name}.{half}.weight"
            if key not in left:
                fail(f"{folder}: PEFT has a module without {key}")
            if not torch.equal(left.pop(key), layer.weight):
                fail(f"{folder}: {key} did not arrive as it is in the file")
        if module.scaling["default"] != scaling:
            fail(f"{folder}: {name}: scaling {module.scaling['default']}, adapter_config.json gives {scaling}")
        deltas[name] = module.get_delta_weight("default").detach().double()
    if left:
        fail(f"{folder}: PEFT dropped {len(left)} tensors, the first is {sorted(left)[0]}")
    if not deltas:
        fail(f"{folder}: PEFT found no module")
    return deltas


def check_merge(folder, base_path, model, deltas):
    before = base_of(base_path).state_dict()
    after = model.merge_and_unload().state_dict()
    for name, delta in deltas.items():
        key = name.removeprefix("base_model.model.") + ".weight"
        want = before[key].double() + delta
        if (after[key].double() - want).norm() > RELATIVE * want.norm():
            fail(f"{folder}: {key}: the merged weight is not W + scaling B A")


def check(base_path, folder):
    with open(os.path.join(folder, "adapter_config.json"), encoding="utf-8") as file:
        config = json.load(file)
    model = PeftModel.from_pretrained(base_of(base_path), folder).eval()
    deltas = check_tensors(folder, model, expected_scaling(config))
    ids = (torch.arange(16) * 7 % model.config.vocab_size)[None]
    with torch.no_grad():
        with_adapter = model(ids).logits
        with model.disable_adapter():
            without = model(ids).logits
    change = (with_adapter - without).abs().max().item()
    if change == 0:
        fail(f"{folder}: the adapter does not change the logits")
    check_merge(folder, base_path, model, deltas)
    print(f"{folder}: {len(deltas)} modules, logits change by at most {change:.3g}")
    return deltas


def main():
    if len(sys.argv) < 3:
        print(__doc__)
        sys.exit(2)
    first = None
    for folder in sys.argv[2:]:
        deltas = check(sys.argv[1], folder)
        first = first or deltas
        for name, delta in deltas.items():
            if name not in first or (delta - first[name]).norm() > RELATIVE * first[name].norm():
                fail(f"{folder}: {name}: another delta W than {sys.argv[2]}")


if __name__ == "__main__":
    main()
