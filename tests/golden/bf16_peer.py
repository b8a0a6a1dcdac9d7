#!/usr/bin/env python3
"""bf16_peer.py [--device cpu|cuda] [--seeds N] [--models DIR [--make]]: how far transformers and PEFT in bf16 are from themselves
in fp32, on the problem of test_golden_bf16.c: JSON on standard output. Needs torch, transformers 5 and peft.

Per family: `losses` and `deltas` are root mean squares of the difference over those of the fp32 run, over 10 steps of
three adapters, all seeds together; a delta is what training added to A and B. `fp32_losses` shows that the problem is
the same one (test_golden_bf16.c compares them with its own).

The models are FAMILY/model below DIR, the golden ones without it. --make first writes random ones there whose heads have 64
dimensions, which the GPU's attention needs and the golden ones lack."""

import argparse
import json
import math
import pathlib
import sys

import numpy
import peft
import torch
import transformers

FAMILIES = ("llama", "qwen3")
STEPS, DOCUMENTS, BATCH, VOCAB, RATE, CLIP = 10, 40, 4, 97, 1e-3, 1.0
ALL = ["q_proj", "k_proj", "v_proj", "o_proj", "gate_proj", "up_proj", "down_proj"]
ADAPTERS = [(4, 8, ALL), (8, 16, ["q_proj", "v_proj", "down_proj"]), (16, 16, ALL)]


def philox(key, c0, c1, c2, c3):
    """base/philox.h for arrays of c0: four arrays of 32-bit words in uint64."""
    mask = numpy.uint64(0xFFFFFFFF)
    c0 = numpy.asarray(c0, dtype=numpy.uint64)
    c1, c2, c3 = (numpy.full_like(c0, c) for c in (c1, c2, c3))
    k0, k1 = numpy.uint64(key & 0xFFFFFFFF), numpy.uint64(key >> 32)
    for _ in range(10):
        p0, p1 = numpy.uint64(0xD2511F53) * c0, numpy.uint64(0xCD9E8D57) * c2
        c0, c2 = (p1 >> numpy.uint64(32)) ^ c1 ^ k0, (p0 >> numpy.uint64(32)) ^ c3 ^ k1
        c1, c3 = p1 & mask, p0 & mask
        k0, k1 = (k0 + numpy.uint64(0x9E3779B9)) & mask, (k1 + numpy.uint64(0xBB67AE85)) & mask
    return c0, c1, c2, c3


def normals(key, count_from, count, module):
    """The first normal number of each element, as train_values of tests/support draws it."""
    r = philox(key, numpy.arange(count_from, count_from + count), module, 0, 0x54)
    unit = [((hi << numpy.uint64(32) | lo) >> numpy.uint64(11)).astype(numpy.float64) * 2.0**-53
            for hi, lo in ((r[0], r[1]), (r[2], r[3]))]
    return numpy.sqrt(-2.0 * numpy.log(1.0 - unit[0])) * numpy.cos(2 * math.pi * unit[1])


def documents(seed, adapter):
    key, found = seed * 16 + adapter, []
    for d in range(DOCUMENTS):
        rows = 8 + int(philox(key, [0], d, 1, ord("P"))[0][0]) % 113
        words = philox(key, numpy.arange(rows), d, 0, ord("P"))
        tokens = 3 + words[0] % numpy.uint64(VOCAB - 3)
        mask = words[1] % numpy.uint64(3) != 0
        mask[0] = False
        found.append((torch.tensor(tokens.astype(numpy.int64)), torch.tensor(mask)))
    return found


def initial(model, seed, adapter, num_layers):
    """Writes A and B in the order of lora/layout.h: layers, targets, A before B, one running element number."""
    rank, _, targets = ADAPTERS[adapter]
    parameters = {n: p for n, p in model.named_parameters() if p.requires_grad}
    at = module = 0
    for layer in range(num_layers):
        for target in (t for t in ALL if t in targets):
            names = [n for n in parameters if f".layers.{layer}." in n and f".{target}." in n]
            a, b = (parameters[next(n for n in names if which in n)] for which in ("lora_A", "lora_B"))
            for p, spread in ((a, 1 / math.sqrt(a.shape[1])), (b, 0.08)):
                values = spread * normals(1000 * seed + adapter, at, p.numel(), module)
                with torch.no_grad():
                    p.copy_(torch.tensor(values.astype(numpy.float32)).reshape(p.shape))
                at += p.numel()
            module += 1
    assert rank == a.shape[0]


def make_model(family, folder, seed):
    shape = {
        "vocab_size": 128,
        "hidden_size": 256,
        "intermediate_size": 384,
        "num_hidden_layers": 3,
        "num_attention_heads": 4,
        "num_key_value_heads": 2,
        "head_dim": 64,
        "max_position_embeddings": 512,
        "rms_norm_eps": 1e-6,
        "tie_word_embeddings": family == "qwen3",
        "bos_token_id": 1,
        "eos_token_id": 2,
        "rope_parameters": {"rope_type": "default", "rope_theta": 10000.0},
    }
    torch.manual_seed(100 + seed)
    model = transformers.AutoModelForCausalLM.from_config(transformers.AutoConfig.for_model(family, **shape))
    with torch.no_grad():
        for name, parameter in model.named_parameters():
            if "norm" in name:
                parameter.copy_(1 + 0.25 * torch.randn(parameter.shape).clamp(-3, 3))
            else:
                spread = 0.25 if "embed_tokens" in name or "lm_head" in name else parameter.shape[1] ** -0.5
                parameter.copy_(spread * torch.randn(parameter.shape))
    model.save_pretrained(folder)


def train(folder, seed, adapter, dtype, device):
    rank, alpha, targets = ADAPTERS[adapter]
    base = transformers.AutoModelForCausalLM.from_pretrained(str(folder), dtype=dtype, attn_implementation="sdpa")
    config = peft.LoraConfig(task_type="CAUSAL_LM", lora_dropout=0.0, r=rank, lora_alpha=alpha, target_modules=targets)
    model = peft.get_peft_model(base.to(device), config)
    initial(model, seed, adapter, base.config.num_hidden_layers)
    parameters = [p for p in model.parameters() if p.requires_grad]
    assert all(p.dtype == torch.float32 for p in parameters)  # PEFT's masters
    start = [p.detach().clone() for p in parameters]
    optimizer = torch.optim.AdamW(parameters, lr=RATE, weight_decay=0.0)
    losses, docs = [], documents(seed, adapter)
    for step in range(STEPS):
        batch = docs[step * BATCH : (step + 1) * BATCH]
        count = sum(int(mask.sum()) for _, mask in batch)
        optimizer.zero_grad()
        total = 0.0
        for tokens, mask in batch:
            logits = model(input_ids=tokens[None].to(device), use_cache=False).logits[0, :-1].float()
            keep = mask[1:]
            loss = torch.nn.functional.cross_entropy(logits[keep.to(device)], tokens[1:][keep].to(device), reduction="sum")
            (loss / count).backward()
            total += loss.item() / count
        torch.nn.utils.clip_grad_norm_(parameters, CLIP)
        optimizer.step()
        losses.append(total)
    return losses, torch.cat([(p.detach() - s).flatten() for p, s in zip(parameters, start)]).double().cpu()


def family_figures(folder, seeds, device):
    squares = {"losses": [0.0, 0.0], "deltas": [0.0, 0.0]}
    fp32_losses = []
    for seed in range(1, seeds + 1):
        fp32_losses.append([])
        for adapter in range(len(ADAPTERS)):
            wide = train(folder, seed, adapter, torch.float32, device)
            narrow = train(folder, seed, adapter, torch.bfloat16, device)
            fp32_losses[-1].append(wide[0])
            for name, a, b in (("losses", torch.tensor(narrow[0]), torch.tensor(wide[0])), ("deltas", narrow[1], wide[1])):
                squares[name][0] += ((a - b) ** 2).sum().item()
                squares[name][1] += (b**2).sum().item()
    return {**{name: math.sqrt(d / s) for name, (d, s) in squares.items()}, "fp32_losses": fp32_losses}


def main():
    parser = argparse.ArgumentParser()
    parser.add_argument("--device", default="cpu")
    parser.add_argument("--seeds", type=int, default=4)
    parser.add_argument("--models", type=pathlib.Path, default=pathlib.Path(__file__).parent / "files")
    parser.add_argument("--make", action="store_true")
    args = parser.parse_args()
    transformers.logging.set_verbosity_error()
    torch.backends.cuda.matmul.allow_tf32 = False
    for seed, family in enumerate(FAMILIES if args.make else ()):
        make_model(family, args.models / family / "model", seed)
    device = torch.cuda.get_device_name() if args.device == "cuda" else "cpu"
    found = {
        "device": device,
        "python": sys.version.split()[0],
        "torch": torch.__version__,
        "transformers": transformers.__version__,
        "peft": peft.__version__,
        "seeds": args.seeds,
        "families": {f: family_figures(args.models / f / "model", args.seeds, args.device) for f in FAMILIES},
    }
    print(json.dumps(found, indent=1))


if __name__ == "__main__":
    main()
