#!/usr/bin/env python3
"""one_report.py DIR: what the JSON files of `tests/gpu/run one` say together, against what is wanted; exit code 1 when it is
not reached, or when a file that it needs is missing."""

import json
import pathlib
import sys

WANTED_TOKENS, WANTED_RATIO, WANTED_ADAPTERS, WANTED_IDLE = 13000, 1.5, 0.97, 0.02


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


def say_run(report, found, name):
    if found is None:
        report.missing(name)
        return
    gib = found["device_bytes"] / 2**30
    parts = ", ".join(f"{100 * share:.1f} % {part}" for part, share in found["parts"].items() if share > 0)
    print(f"{name:46} {found['tokens_per_s']:10.0f} tokens/s, recompute {found['recompute']}, {gib:.1f} GiB; {parts}")


def say_ops(one):
    ops = one["serial_ops_ns"]
    print(f"op by op {one['serial_step_ns'] / 1e6:.1f} ms, in ops {ops / 1e6:.1f} ms, step {one['step_ns'] / 1e6:.1f} ms:")
    for op in one["ops"][:14]:
        rate = f"{op['flops'] / op['ns'] / 1e3:8.1f} TFLOP/s" if op["flops"] > 0 else ""
        print(f"  {op['op']:34} {op['calls']:5} {op['ns'] / 1e6:9.2f} ms {100 * op['ns'] / ops:5.1f} % {rate}")


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
    if one is not None and peer is not None and peer["best_tokens_per_s"] is not None:
        ratio = one["tokens_per_s"] / peer["best_tokens_per_s"]
        report.check("beside the better of transformers + PEFT", ratio, WANTED_RATIO)
    else:
        print("transformers + PEFT did not run")
    for name in ("documents_4x4096", "adapters_4", "recompute_block", "document_65536", "document_131072"):
        say_run(report, read(folder, name), name)
    if one is not None:
        say_ops(one)
    sys.exit(0 if report.held else 1)


if __name__ == "__main__":
    main()
