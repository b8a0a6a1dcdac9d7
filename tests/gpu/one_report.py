#!/usr/bin/env python3
"""one_report.py DIR: what the JSON files of `tests/gpu/run one` say together, against what is wanted; exit code 1 when it is
not reached, or when a file that it needs is missing."""

import json
import pathlib
import sys

WANTED_TOKENS, WANTED_RATIO, WANTED_ADAPTERS, WANTED_IDLE, WANTED_MEMORY = 13000, 1.5, 0.97, 0.02, 0.05

# Precisions of the peer's adapters (train_peer.py). Ours keeps adapters and moments in fp32, so it is judged beside those that do; with
# both in bf16 a change of less than 2^-9 of a weight is lost.
JUDGED = ("fp32", "autocast")
PRECISIONS = {
    "fp32": "adapters and their products in fp32",
    "autocast": "adapters in fp32, products in bf16",
    "bf16": "adapters and moments in bf16: not the same training",
}

# A group of ops, and how the names of its ops begin; the last takes what is left.
GROUPS = (
    ("linear layers", ("gemm",)),
    ("LoRA beside them", ("lora_",)),
    ("attention", ("attention_fwd", "attention_bwd")),
    ("before and behind it", ("rope_", "head_norm_", "attention_delta", "partial_sum")),
    ("head and loss", ("loss_",)),
    ("optimizer", ("adamw", "grad_norm", "finite_check", "clip_factor", "vector_sum")),
    ("norms, SwiGLU, residual", ("",)),
)


class Report:
    def __init__(self):
        self.held = True

    def check(self, what, found, wanted, most=False):
        holds = found <= wanted if most else found >= wanted
        self.held = self.held and holds
        print(f"{what:46} {found:10.3f}, wanted {'at most ' if most else ''}{wanted}: {'yes' if holds else 'NO'}")

    def missing(self, what):
        self.held = False
        print(f"{what:46} MISSING")


def read(folder, name):
    try:
        return json.loads((folder / f"one_{name}.json").read_text())
    except (OSError, ValueError):
        return None


def say_stalls(report, one):
    report.check("idle share of the compute stream", one["parts"]["idle"], WANTED_IDLE, most=True)
    report.check("waits of the host inside microbatches", one["waits_inside"], 0, most=True)
    report.check("allocations inside microbatches", one["allocations_inside"], 0, most=True)
    given = sorted(one["given_ns"])[len(one["given_ns"]) // 2]
    print(f"{'given to the device after':46} {given / 1e6:10.1f} ms of {one['step_ns'] / 1e6:.1f} ms")


def say_memory(report, found, name):
    """What was planned, with CUDA itself and its libraries, beside the driver's count. Before 7550671 was measured the plan was
    the arena alone."""
    buffers, used = found["device_bytes"], found.get("used_bytes", 0)
    planned = found.get("planned_bytes", found["arena_bytes"])
    if used == 0:
        return
    print(f"{name:46} planned {planned / 2**30:.2f} GiB, the arena {found['arena_bytes'] / 2**30:.2f}, all buffers "
          f"{buffers / 2**30:.2f}, used {used / 2**30:.2f}, before the first buffer {found['used_before_bytes'] / 2**30:.2f}")
    report.check(f"{name}: plan and use apart", abs(planned / used - 1), WANTED_MEMORY, most=True)


def say_run(report, found, name):
    if found is None:
        report.missing(name)
        return
    gib = found["device_bytes"] / 2**30
    parts = ", ".join(f"{100 * share:.1f} % {part}" for part, share in found["parts"].items() if share > 0)
    print(f"{name:46} {found['tokens_per_s']:10.0f} tokens/s, recompute {found['recompute']}, {gib:.1f} GiB; {parts}")
    if found.get("counted_microbatches", 0) > 0:  # of the first two, and in older files, it is not known
        report.check(f"{name}: waits and allocations inside", found["waits_inside"] + found["allocations_inside"], 0, most=True)
    say_memory(report, found, name)


def say_ops(one):
    ops = one["serial_ops_ns"]
    print(f"op by op {one['serial_step_ns'] / 1e6:.1f} ms, in ops {ops / 1e6:.1f} ms, step {one['step_ns'] / 1e6:.1f} ms:")
    for op in one["ops"][:14]:
        rate = f"{op['flops'] / op['ns'] / 1e3:8.1f} TFLOP/s" if op["flops"] > 0 else " " * 16
        if "bytes" in op:
            rate += f" {op['bytes'] / op['ns'] / 1e3:6.2f} TB/s"
        print(f"  {op['op']:34} {op['calls']:5} {op['ns'] / 1e6:9.2f} ms {100 * op['ns'] / ops:5.1f} % {rate}")


def precision_of(variant):
    """Files before 8a7d6ec say at most whether under autocast."""
    return variant.get("adapters", "autocast" if variant.get("autocast") else "fp32")


def say_peer(report, one, peer):
    """Ours beside the best of transformers + PEFT, of each precision of its adapters and of those that are judged."""
    best = {}
    for variant in peer["variants"] if peer is not None else ():
        if "tokens_per_s" in variant:
            name = precision_of(variant)
            best[name] = max(best.get(name, 0), variant["tokens_per_s"])
    for name, tokens in best.items():
        ratio = f", ours {one['tokens_per_s'] / tokens:.3f} times that" if one is not None else ""
        print(f"{'the best of transformers + PEFT':46} {tokens:10.0f} tokens/s{ratio}; {PRECISIONS[name]}")
    judged = max((best[name] for name in JUDGED if name in best), default=None)
    if one is not None and judged is not None:
        report.check("beside the better of those in fp32", one["tokens_per_s"] / judged, WANTED_RATIO)
    else:
        print("transformers + PEFT with adapters in fp32 did not run")


def say_long_peer(peer):
    """Whether transformers + PEFT train the long document at all, which decides nothing here."""
    for variant in peer["variants"]:
        found = "out of memory" if "out_of_memory" in variant else f"{variant['tokens_per_s']:.0f} tokens/s"
        print(f"transformers + PEFT, {peer['documents']} document of {peer['rows']}, {'with' if variant['checkpointing'] else 'without'} "
              f"checkpointing: {found}")


def group_of(op):
    return next(name for name, begins in GROUPS if op["op"].startswith(begins))


def say_ceilings(one):
    """Where the time of a step goes beside what the same device does in the same run when it only multiplies, or only
    copies. An op's bound is the later of the two; the second bound takes attention as fast as it is alone."""
    bare = one.get("bare")
    if bare is None:
        return
    product, copy = bare["flops_per_ns"], bare["copy_bytes_per_ns"]
    alone = {f"attention_{way}": bare[f"attention_{way}_flops_per_ns"] for way in ("fwd", "bwd")}
    print(f"bare: a product of {bare['m']}x{bare['n']}x{bare['k']} {product / 1e3:.1f} TFLOP/s, a copy {copy / 1e3:.2f} TB/s")
    print(f"      attention of {bare['attention_documents']} documents {alone['attention_fwd'] / 1e3:.1f} TFLOP/s forward, "
          f"{alone['attention_bwd'] / 1e3:.1f} backward")
    print(f"  {'':24} {'ms':>8} {'share':>7} {'as products':>12} {'as copies':>10} {'bound':>8} {'of it':>6}")
    bounds, attended = 0.0, 0.0
    for name, _ in GROUPS:
        ops = [op for op in one["ops"] if group_of(op) == name]
        ns = sum(op["ns"] for op in ops)
        multiplied, copied = sum(op["flops"] for op in ops) / product, sum(op["bytes"] for op in ops) / copy
        bound = sum(max(op["flops"] / product, op["bytes"] / copy) for op in ops)
        bounds += bound
        attended += sum(op["flops"] / alone[op["op"]] for op in ops) if name == "attention" else bound
        if ns > 0:
            print(f"  {name:24} {ns / 1e6:8.2f} {100 * ns / one['serial_ops_ns']:5.1f} % {multiplied / 1e6:12.2f} "
                  f"{copied / 1e6:10.2f} {bound / 1e6:8.2f} {bound / ns:6.2f}")
    step = one["step_ns"]
    print(f"{'bound of the step, of both ceilings':46} {bounds / 1e6:10.1f} ms, {bounds / step:.3f} of {step / 1e6:.1f} ms")
    print(f"{'with attention as fast as alone':46} {attended / 1e6:10.1f} ms, {attended / step:.3f}")


def main():
    folder, report = pathlib.Path(sys.argv[1]), Report()
    one, four, peer = read(folder, "documents_4x4096"), read(folder, "adapters_4"), read(folder, "peer")
    if one is None:
        report.missing("documents_4x4096")
    else:
        report.check("tokens/s, 4 documents of 4096", one["tokens_per_s"], WANTED_TOKENS)
        say_stalls(report, one)
    if one is not None and four is not None:
        report.check("four adapters beside one", four["tokens_per_s"] / one["tokens_per_s"], WANTED_ADAPTERS)
    say_peer(report, one, peer)
    long_peer = read(folder, "peer_65536")
    if long_peer is not None:
        say_long_peer(long_peer)
    for name in ("documents_4x4096", "adapters_4", "recompute_block", "document_65536", "document_131072", "small"):
        say_run(report, read(folder, name), name)
    if one is not None:
        say_ops(one)
        say_ceilings(one)
    sys.exit(0 if report.held else 1)


if __name__ == "__main__":
    main()
