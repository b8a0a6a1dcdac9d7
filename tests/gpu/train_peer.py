#!/usr/bin/env python3
"""train_peer.py FILE.json [--shape NAME] [--documents N] [--rows N] [--repeat N] [--device cuda|cpu] [--may-run-out]: tokens a
second of transformers + PEFT on the work of `cadre bench train`: a random model of the shape in bf16, one adapter of rank 16 on seven
linears, documents of equal length, AdamW, one optimizer step for all of them.

Each of VARIANTS is tried in turn: with and without gradient checkpointing, all documents in one batch or one at a time with
their gradients added up, and for the fastest of either each precision of the adapters. One that runs out of memory says so;
that all do is an error without --may-run-out. Needs torch, transformers and peft; on the CPU only to see that it runs."""

import argparse
import gc
import json
import math
import statistics
import sys
import time

import peft
import torch
import transformers

SHAPES = {
    "llama-3.1-8b": dict(
        num_hidden_layers=32, hidden_size=4096, intermediate_size=14336, vocab_size=128256, num_attention_heads=32,
        num_key_value_heads=8, rope_parameters={"rope_type": "default", "rope_theta": 500000.0},
    ),
    "tiny": dict(
        num_hidden_layers=2, hidden_size=256, intermediate_size=512, vocab_size=512, num_attention_heads=4,
        num_key_value_heads=2, rope_parameters={"rope_type": "default", "rope_theta": 10000.0},
    ),
}
# PEFT's own: adapters and their products in fp32; under autocast: adapters in fp32, products in bf16; and all of it in bf16.
FP32, AUTOCAST, BF16 = "fp32", "autocast", "bf16"
VARIANTS = [  # gradient checkpointing, documents in one batch, precision of the adapters
    (False, True, FP32),
    (False, False, FP32),
    (False, False, AUTOCAST),
    (False, False, BF16),
    (True, True, FP32),
    (True, True, AUTOCAST),
    (True, True, BF16),
]
WARM = 2


def sync(device):
    if device == "cuda":
        torch.cuda.synchronize()


def make_model(shape, rows, checkpointing, adapters, device):
    config = transformers.LlamaConfig(
        **SHAPES[shape], max_position_embeddings=rows, rms_norm_eps=1e-5, tie_word_embeddings=False, use_cache=False
    )
    torch.set_default_dtype(torch.bfloat16)
    with torch.device(device):
        base = transformers.AutoModelForCausalLM.from_config(config, attn_implementation="sdpa")
    torch.set_default_dtype(torch.float32)
    if checkpointing:
        base.gradient_checkpointing_enable(gradient_checkpointing_kwargs={"use_reentrant": False})
        base.enable_input_require_grads()
    lora = peft.LoraConfig(task_type="CAUSAL_LM", r=16, lora_alpha=32, lora_dropout=0.0, target_modules="all-linear")
    return peft.get_peft_model(base, lora, autocast_adapter_dtype=adapters != BF16).train()


def measure(args, checkpointing, together, adapters):
    model = make_model(args.shape, args.rows, checkpointing, adapters, args.device)
    parameters = [p for p in model.parameters() if p.requires_grad]
    optimizer = torch.optim.AdamW(parameters, lr=1e-4, weight_decay=0.0, fused=args.device == "cuda")
    vocab = SHAPES[args.shape]["vocab_size"]
    tokens = torch.randint(vocab, (args.documents, args.rows), device=args.device)
    batches = [tokens] if together else list(tokens.split(1))
    seconds, first, last = [], None, None
    for step in range(WARM + args.repeat):
        sync(args.device)
        begin = time.monotonic()
        loss_sum = 0.0
        for batch in batches:
            with torch.autocast(args.device, torch.bfloat16, enabled=adapters == AUTOCAST):
                loss = model(input_ids=batch, labels=batch).loss / len(batches)
            loss.backward()
            loss_sum = loss_sum + loss.detach()
        torch.nn.utils.clip_grad_norm_(parameters, 1.0)
        optimizer.step()
        optimizer.zero_grad()
        sync(args.device)
        if step >= WARM:
            seconds.append(time.monotonic() - begin)
        last = loss_sum.item()
        first = last if first is None else first
    if not (math.isfinite(first) and math.isfinite(last)):
        raise SystemExit(f"the loss is not finite: {first}, {last}")
    return {
        "seconds": seconds,
        "tokens_per_s": args.documents * args.rows / statistics.median(seconds),
        "peak_bytes": torch.cuda.max_memory_allocated() if args.device == "cuda" else None,
        "first_loss": first,
        "last_loss": last,
    }


def attempt(args, checkpointing, together, adapters):
    if args.device == "cuda":
        torch.cuda.reset_peak_memory_stats()
    try:
        found = measure(args, checkpointing, together, adapters)
    except torch.OutOfMemoryError as error:
        found = {"out_of_memory": str(error).splitlines()[0]}
    gc.collect()
    if args.device == "cuda":
        torch.cuda.empty_cache()
    documents = args.documents if together else 1
    found = {"checkpointing": checkpointing, "documents_a_batch": documents, "adapters": adapters, **found}
    print(json.dumps(found), file=sys.stderr, flush=True)
    return found


def main():
    parser = argparse.ArgumentParser()
    parser.add_argument("file")
    parser.add_argument("--shape", default="llama-3.1-8b", choices=SHAPES)
    parser.add_argument("--documents", type=int, default=4)
    parser.add_argument("--rows", type=int, default=4096)
    parser.add_argument("--repeat", type=int, default=5)
    parser.add_argument("--device", default="cuda", choices=["cuda", "cpu"])
    parser.add_argument("--may-run-out", action="store_true")
    args = parser.parse_args()
    transformers.logging.set_verbosity_error()
    variants = []
    for variant in VARIANTS:  # the file has what there is, if this program is ended
        if args.documents == 1 and (variant[2] != FP32 or not variant[1]):
            continue  # one document is one batch either way
        variants.append(attempt(args, *variant))
        write(args, variants)
    sys.exit(0 if args.may_run_out or any("tokens_per_s" in v for v in variants) else 1)


def write(args, variants):
    ran = [v for v in variants if "tokens_per_s" in v]
    result = {
        "time": time.strftime("%Y-%m-%dT%H:%M:%SZ", time.gmtime()),
        "device": torch.cuda.get_device_name() if args.device == "cuda" else "cpu",
        "torch": torch.__version__,
        "transformers": transformers.__version__,
        "peft": peft.__version__,
        "shape": args.shape,
        "documents": args.documents,
        "rows": args.rows,
        "variants": variants,
        "best_tokens_per_s": max((v["tokens_per_s"] for v in ran), default=None),
    }
    with open(args.file, "w") as file:
        json.dump(result, file, indent=1)
        file.write("\n")


if __name__ == "__main__":
    main()
