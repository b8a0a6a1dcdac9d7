#!/usr/bin/env python3
"""one_report.py DIR: what the JSON files of `tests/gpu/run one` say together, against what is wanted; exit code 1 when it is
not reached."""

import json
import pathlib
import sys

WANTED_TOKENS, WANTED_RATIO, WANTED_ADAPTERS = 13000, 1.5, 0.97


def read(folder, name):
    path = folder / f"one_{name}.json"
    return json.loads(path.read_text()) if path.exists() else None


def main():
    folder = pathlib.Path(sys.argv[1])
    held = True

    def say(what, found, wanted):
        nonlocal held
        held = held and found >= wanted
        print(f"{what:46} {found:10.2f}, wanted {wanted}: {'yes' if found >= wanted else 'NO'}")

    one, four, peer = read(folder, "documents_4x4096"), read(folder, "adapters_4"), read(folder, "peer")
    say("tokens/s, 4 documents of 4096", one["tokens_per_s"], WANTED_TOKENS)
    say("four adapters beside one", four["tokens_per_s"] / one["tokens_per_s"], WANTED_ADAPTERS)
    if peer is not None:
        say("beside the better of transformers + PEFT", one["tokens_per_s"] / peer["best_tokens_per_s"], WANTED_RATIO)
    for name in ("recompute_block", "document_65536", "document_131072"):
        found = read(folder, name)
        gib = found["arena_bytes"] / 2**30
        print(f"{name:46} {found['tokens_per_s']:10.0f} tokens/s, recompute {found['recompute']}, {gib:.1f} GiB")
    ops = one["serial_ops_ns"]
    print(f"op by op {one['serial_step_ns'] / 1e6:.1f} ms, in ops {ops / 1e6:.1f} ms, step {one['step_ns'] / 1e6:.1f} ms:")
    for op in one["ops"][:14]:
        rate = f"{op['flops'] / op['ns'] / 1e3:8.1f} TFLOP/s" if op["flops"] > 0 else ""
        print(f"  {op['op']:34} {op['calls']:5} {op['ns'] / 1e6:9.2f} ms {100 * op['ns'] / ops:5.1f} % {rate}")
    sys.exit(0 if held else 1)


if __name__ == "__main__":
    main()
