#!/usr/bin/env python3
"""make.py DIR: writes the golden files of this folder into DIR, which must not exist.

Needs torch, transformers 5 and peft; runs on the CPU within a minute. README.md says what the files hold. The same
versions give the same bytes.

The expected numbers come from the code of transformers and PEFT, run in double. That code converts to float32 on
purpose in places (norms, softmax, rotary tables); `double_upcasts` turns these conversions into conversions to
float64. `check_slope` proves that nothing is left in single precision, and `compare_float32` that the code as it is,
in float32, agrees with the numbers written.
"""

import contextlib
import copy
import importlib
import json
import math
import pathlib
import random
import shutil
import sys

import peft
import torch
import transformers
from safetensors.torch import save_file

VOCAB = 97
STEPS = 10
WARMUP = 2
TRAINING = {
    "steps": STEPS,
    "warmup_steps": WARMUP,
    "learning_rate": 1e-3,
    "beta1": 0.9,
    "beta2": 0.999,
    "eps": 1e-8,
    "weight_decay": 0.01,
    "clip_norm": 0.5,
}

SHAPE = {
    "vocab_size": VOCAB,
    "hidden_size": 48,
    "intermediate_size": 80,
    "num_hidden_layers": 2,
    "num_attention_heads": 4,
    "num_key_value_heads": 2,
    "max_position_embeddings": 512,
    "bos_token_id": 1,
    "eos_token_id": 2,
    "attention_dropout": 0.0,
}
LLAMA3 = {
    "rope_type": "llama3",
    "factor": 8.0,
    "low_freq_factor": 1.0,
    "high_freq_factor": 4.0,
    "original_max_position_embeddings": 64,
}
FAMILIES = {
    "llama": {
        "rms_norm_eps": 1e-5,
        "tie_word_embeddings": False,
        "rope_parameters": {"rope_theta": 500000.0, **LLAMA3},
    },
    "mistral": {
        "rms_norm_eps": 1e-5,
        "tie_word_embeddings": False,
        "sliding_window": 70,
        "rope_parameters": {"rope_type": "default", "rope_theta": 10000.0},
    },
    "qwen2": {
        "rms_norm_eps": 1e-6,
        "tie_word_embeddings": True,
        "rope_parameters": {
            "rope_type": "yarn",
            "rope_theta": 1000000.0,
            "factor": 8.0,
            "original_max_position_embeddings": 64,
        },
    },
    "qwen3": {
        "rms_norm_eps": 1e-6,
        "tie_word_embeddings": True,
        "num_hidden_layers": 3,
        "head_dim": 16,
        "rope_parameters": {"rope_type": "default", "rope_theta": 1000000.0},
    },
}
ADAPTERS = {
    "wide": {"r": 4, "lora_alpha": 6, "use_rslora": True, "target_modules": "all-linear"},
    "narrow": {"r": 8, "lora_alpha": 16, "target_modules": ["q_proj", "v_proj", "down_proj"]},
}
# Documents in the order of the file; a global batch takes the next `batch`, the last of an epoch what is left.
LENGTHS = {
    "wide": ([129, 17, 300, 2, 128, 64, 127, 31, 256, 5, 200, 90], 3),
    "narrow": ([40, 128, 3, 150, 129, 8, 260, 77, 16, 222], 4),
}

# ==== documents ====


def make_mask(rng, kind, length):
    """1: the token is a target. `turns` alternates prompts and answers, `answer` has one of each, `text` is all ones:
    also the first token, which no row predicts and which therefore must not count."""
    if kind == "text":
        return "1" * length
    if kind == "answer" or length < 12:
        prompt = max(1, length // 3)
        return "0" * prompt + "1" * (length - prompt)
    mask, supervised = "", False
    while len(mask) < length:
        mask += str(int(supervised)) * rng.randint(3, max(4, length // 4))
        supervised = not supervised
    return mask[: length - 1] + "1"


def make_documents(rng, lengths):
    documents = []
    for index, length in enumerate(lengths):
        rows = range(length) if length <= 8 else {length - 1, length // 2, min(length - 2, 127)}
        documents.append(
            {
                "tokens": [rng.randrange(3, VOCAB) for _ in range(length)],
                "mask": make_mask(rng, ("answer", "turns", "text")[index % 3], length),
                "rows": sorted(rows),
            }
        )
    return documents


def make_cases():
    rng = random.Random(1)
    adapters = []
    for name, (lengths, size) in LENGTHS.items():
        count = len(lengths)
        epoch = [list(range(first, min(first + size, count))) for first in range(0, count, size)]
        documents = make_documents(rng, lengths)
        # One token, nothing to predict: for its logits only, no batch has it.
        documents.append({"tokens": [rng.randrange(3, VOCAB)], "mask": "0", "rows": [0]})
        batches = [epoch[step % len(epoch)] for step in range(STEPS)]
        adapters.append({"name": name, "batch_documents": size, "batches": batches, "documents": documents})
    return {"vocab": VOCAB, "training": TRAINING, "adapters": adapters}


def write_cases(path, cases):
    """JSON with a line for each document."""
    text = json.dumps({**cases, "adapters": "ADAPTERS"}, indent=1)
    blocks = []
    for adapter in cases["adapters"]:
        lines = ",\n".join("   " + json.dumps(d, separators=(",", ":")) for d in adapter["documents"])
        head = json.dumps({**adapter, "documents": "LINES"})
        blocks.append("  " + head.replace('"LINES"', "[\n" + lines + "\n  ]"))
    path.write_text(text.replace('"ADAPTERS"', "[\n" + ",\n".join(blocks) + "\n ]") + "\n")


# ==== models and adapters ====


def fill(parameters, generator, spread):
    with torch.no_grad():
        for name, parameter in sorted(parameters):
            values = torch.randn(parameter.shape, generator=generator, dtype=torch.float64)
            parameter.copy_(spread(name, parameter.shape, values))


def base_values(name, shape, normal):
    if "norm" in name:
        return 1 + 0.25 * normal.clamp(-3, 3)
    if name.endswith("bias"):
        return 0.3 * normal
    if "embed_tokens" in name or "lm_head" in name:
        return 0.25 * normal
    return normal / math.sqrt(shape[1])


def lora_values(name, shape, normal):
    return normal * (1 / math.sqrt(shape[1]) if "lora_A" in name else 0.08)


def make_model(family, folder, generator):
    config = transformers.AutoConfig.for_model(family, **{**SHAPE, **FAMILIES[family]})
    model = transformers.AutoModelForCausalLM.from_config(config)
    fill(model.named_parameters(), generator, base_values)
    model.save_pretrained(folder / "model")
    if family == "mistral":
        model.save_pretrained(folder / "model-sharded", max_shard_size="60KB")


def make_v4(folder):
    """The same model in the spelling of transformers 4, by hand: theta and scaling stand apart, torch_dtype."""
    source, target = folder / "model", folder / "model-v4"
    config = json.loads((source / "config.json").read_text())
    for key in ("rope_parameters", "dtype", "pad_token_id"):
        config.pop(key, None)
    config |= {"rope_scaling": LLAMA3, "rope_theta": 500000.0}
    config |= {"torch_dtype": "float32", "transformers_version": "4.46.3"}
    target.mkdir()
    (target / "config.json").write_text(json.dumps(config, indent=2, sort_keys=True) + "\n")
    shutil.copy(source / "model.safetensors", target)


def make_adapter(folder, name, generator):
    base = transformers.AutoModelForCausalLM.from_pretrained(str(folder / "model"), dtype=torch.float32)
    config = peft.LoraConfig(task_type="CAUSAL_LM", lora_dropout=0.0, **ADAPTERS[name])
    model = peft.get_peft_model(base, config)
    fill([(n, p) for n, p in model.named_parameters() if p.requires_grad], generator, lora_values)
    model.save_pretrained(str(folder / name), save_embedding_layers=False)
    (folder / name / "README.md").unlink(missing_ok=True)
    path = folder / name / "adapter_config.json"
    written = json.loads(path.read_text())
    written["base_model_name_or_path"] = "../model"  # not a path of this machine
    written["target_modules"] = sorted(written["target_modules"])  # a set: in any order
    path.write_text(json.dumps(written, indent=2, sort_keys=True))


# ==== double ====


class Double:
    """torch, whose float32 is float64."""

    float32 = float = torch.float64

    def __getattr__(self, name):
        return getattr(torch, name)


@contextlib.contextmanager
def double_upcasts(family):
    modules = [
        importlib.import_module("transformers.modeling_rope_utils"),
        importlib.import_module(f"transformers.models.{family}.modeling_{family}"),
    ]
    to_float = torch.Tensor.float
    torch.Tensor.float = torch.Tensor.double
    for module in modules:
        module.torch = Double()
    try:
        yield
    finally:
        torch.Tensor.float = to_float
        for module in modules:
            module.torch = torch


def load(folder, name, dtype, model="model"):
    path = str(folder / model)
    base = transformers.AutoModelForCausalLM.from_pretrained(path, dtype=dtype, attn_implementation="eager")
    assert all(tensor.dtype == dtype for tensor in [*base.parameters(), *base.buffers()])
    path = str(folder / name)
    adapted = peft.PeftModel.from_pretrained(base, path, is_trainable=True, autocast_adapter_dtype=False)
    return adapted.to(dtype).eval()  # the files hold float32


# ==== expected numbers ====


def document_logits(model, document):
    """(length, VOCAB); one document a call: no padding, positions from 0."""
    return model(input_ids=torch.tensor([document["tokens"]]), use_cache=False).logits[0]


def supervised(document):
    return document["mask"][1:].count("1")


def loss_sum(logits, document):
    """Sum of -log p of the supervised tokens. Row i predicts token i + 1."""
    chosen = [i for i, flag in enumerate(document["mask"][1:]) if flag == "1"]
    if not chosen:
        return logits.sum() * 0
    targets = torch.tensor([document["tokens"][i + 1] for i in chosen])
    return torch.nn.functional.cross_entropy(logits[chosen], targets, reduction="sum")


def batch_loss(model, documents):
    total = sum(supervised(document) for document in documents)
    return sum(loss_sum(document_logits(model, document), document) for document in documents) / total


def trainable(model):
    """PEFT's names of the file -> parameters."""
    return {n.replace(".default", ""): p for n, p in sorted(model.named_parameters()) if p.requires_grad}


def gradients(model, documents):
    model.zero_grad()
    batch_loss(model, documents).backward()
    return {name: parameter.grad.clone() for name, parameter in trainable(model).items()}


def evaluate(model, documents):
    """{"losses": per document, "logits.D": rows of document D}"""
    with torch.no_grad():
        logits = [document_logits(model, document) for document in documents]
        losses = [loss_sum(z, document) for z, document in zip(logits, documents)]
    numbers = {f"logits.{i}": z[document["rows"]].clone() for i, (z, document) in enumerate(zip(logits, documents))}
    return {"losses": torch.stack(losses), **numbers}


def train(model, adapter):
    parameters = list(trainable(model).values())
    optimizer = torch.optim.AdamW(
        parameters,
        lr=TRAINING["learning_rate"],
        betas=(TRAINING["beta1"], TRAINING["beta2"]),
        eps=TRAINING["eps"],
        weight_decay=TRAINING["weight_decay"],
        foreach=False,
    )
    schedule = transformers.get_cosine_schedule_with_warmup(optimizer, WARMUP, STEPS)
    rates, losses, norms = [], [], []
    for batch in adapter["batches"]:
        optimizer.zero_grad()
        loss = batch_loss(model, [adapter["documents"][i] for i in batch])
        loss.backward()
        norms.append(torch.nn.utils.clip_grad_norm_(parameters, TRAINING["clip_norm"], foreach=False).item())
        losses.append(loss.item())
        rates.append(schedule.get_last_lr()[0])
        optimizer.step()
        schedule.step()
    final = {name: parameter.detach().clone() for name, parameter in trainable(model).items()}
    numbers = {"learning_rates": rates, "losses": losses, "grad_norms": norms}
    return {name: torch.tensor(values, dtype=torch.float64) for name, values in numbers.items()}, final


# ==== that the numbers are right ====


def check_slope(model, documents, found):
    """The loss along a random direction, by central differences of 4th order. Something in single precision would
    show as a difference of 1e-3 and more."""
    generator = torch.Generator().manual_seed(5)
    direction = {name: torch.randn(g.shape, generator=generator, dtype=g.dtype) for name, g in found.items()}
    parameters, h = trainable(model), 2e-5
    start = {name: parameter.detach().clone() for name, parameter in parameters.items()}

    def place(distance):
        for name, parameter in parameters.items():
            parameter.copy_(start[name] + distance * direction[name])

    def at(distance):
        with torch.no_grad():
            place(distance)
            loss = batch_loss(model, documents).item()
            place(0)
        return loss

    slope = (8 * (at(h) - at(-h)) - (at(2 * h) - at(-2 * h))) / (12 * h)
    wanted = sum((direction[name] * found[name]).sum().item() for name in found)
    assert abs(slope - wanted) <= 1e-8 * abs(wanted), (slope, wanted)


def distance(got, want):
    """Largest norm of a difference of two tensors of a name, over the norm of the one wanted."""
    return max(((got[name].double() - want[name]).norm() / want[name].norm()).item() for name in want)


def moved(final, start):
    return {name: final[name].double() - start[name].double() for name in final}


def compare_float32(folder, adapter, reference):
    """The same in float32, with transformers as it is."""
    model = load(folder, adapter["name"], torch.float32)
    start = {name: parameter.detach().clone() for name, parameter in trainable(model).items()}
    found = {"documents": evaluate(model, adapter["documents"])}
    found["gradients"] = gradients(model, [adapter["documents"][i] for i in adapter["batches"][0]])
    found["training"], found["final"] = train(model, adapter)
    distances = {key: distance(found[key], reference[key]) for key in found}
    distances["change"] = distance(moved(found["final"], start), moved(reference["final"], start))
    print(f"  float32: {', '.join(f'{key} {value:.1e}' for key, value in distances.items())}", flush=True)
    for key in ("documents", "gradients", "training", "final"):
        assert distances[key] <= 1e-4, key


def check_other_folders(folder, family, documents, wanted):
    """The variants of a model folder are the same model to transformers too."""
    for variant in sorted(folder.glob("model-*")):
        model = load(folder, "wide", torch.float64, variant.name)
        assert distance(evaluate(model, documents), wanted) == 0, (family, variant)


# ==== files ====


def write_tensors(path, tensors):
    save_file({name: tensor.contiguous() for name, tensor in tensors.items()}, path)


def make_adapter_numbers(family, folder, adapter, expected):
    name, documents = adapter["name"], adapter["documents"]
    reference = {}
    with double_upcasts(family):
        model = load(folder, name, torch.float64)
        first = [documents[i] for i in adapter["batches"][0]]
        reference["documents"] = evaluate(model, documents)
        with model.disable_adapter():
            base = evaluate(model, documents)
        assert distance(base, reference["documents"]) > 0.1, "the adapter changes nothing"
        reference["gradients"] = gradients(model, first)
        check_slope(model, first, reference["gradients"])
        reference["training"], reference["final"] = train(copy.deepcopy(model), adapter)
        if name == "wide":
            check_other_folders(folder, family, documents, reference["documents"])
    norms = reference["training"]["grad_norms"]
    smallest = min(g.abs().max().item() for g in reference["gradients"].values())
    print(f"{family} {name}: losses {[round(x, 4) for x in reference['training']['losses'].tolist()]}")
    print(f"  norms {[round(x, 3) for x in norms.tolist()]}, smallest largest gradient {smallest:.1e}")
    assert (norms > TRAINING["clip_norm"]).sum() >= STEPS - 2, "clipping is not tested"
    assert smallest > 1e-4, "a gradient is too small to compare"
    compare_float32(folder, adapter, reference)
    for key, value in reference["training"].items():
        expected[f"{name}.{key}"] = value
    for key, value in reference["documents"].items():
        expected[f"{name}.documents.{key}"] = value
        expected[f"{name}.base.{key}"] = base[key]
    for key in ("gradients", "final"):
        write_tensors(folder / f"{name}-{key}.safetensors", reference[key])


def main():
    out = pathlib.Path(sys.argv[1])
    out.mkdir(parents=True)
    torch.set_num_threads(1)
    torch.use_deterministic_algorithms(True)
    transformers.logging.set_verbosity_error()
    print(f"python {sys.version.split()[0]} torch {torch.__version__} transformers {transformers.__version__} ", end="")
    print(f"peft {peft.__version__}")
    cases = make_cases()
    write_cases(out / "documents.json", cases)
    for seed, family in enumerate(FAMILIES):
        folder, expected = out / family, {}
        generator = torch.Generator().manual_seed(100 + seed)
        make_model(family, folder, generator)
        if family == "llama":
            make_v4(folder)
        for adapter in cases["adapters"]:
            make_adapter(folder, adapter["name"], generator)
            make_adapter_numbers(family, folder, adapter, expected)
        write_tensors(folder / "expected.safetensors", expected)


if __name__ == "__main__":
    main()
