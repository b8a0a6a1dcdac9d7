#!/usr/bin/env python3
"""losses_report.py ONE.jsonl OTHER.jsonl: the losses of two runs of the same problem, step by step; exit code 1 when one differs by more
than 2 % of the other, which is far above what bf16 makes of it in 8 steps and far below what a wrong gradient does, or when nothing
was learned."""

import json
import sys


def losses(path):
    with open(path) as file:
        lines = [json.loads(line) for line in file]
    return {(line["adapter"], line["step"]): line["loss"] for line in lines if "loss" in line}


def main():
    one, other = losses(sys.argv[1]), losses(sys.argv[2])
    held = bool(one) and one.keys() == other.keys()
    for (adapter, step), loss in sorted(one.items()):
        found = other.get((adapter, step), float("nan"))
        off = abs(found - loss) / loss
        held = held and off <= 0.02
        print(f"{adapter:10} step {step}: {loss:.5f} {found:.5f} {100 * off:6.3f} %")
    for adapter in {adapter for adapter, _ in other}:
        steps = [loss for (name, _), loss in sorted(other.items()) if name == adapter]
        held = held and min(steps[-2:]) < 0.98 * steps[0]
    sys.exit(0 if held else 1)


if __name__ == "__main__":
    main()
