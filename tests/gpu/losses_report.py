#!/usr/bin/env python3
"""losses_report.py ONE.jsonl OTHER.jsonl: the losses of two runs of the same problem, step by step, and those of evaluations; exit
code 1 when one differs by more than 2 % of the other, which is far above what bf16 makes of it in 8 steps and far below what a
wrong gradient does, or when nothing was learned."""

import json
import sys


def losses(path, key):
    with open(path) as file:
        lines = [json.loads(line) for line in file]
    return {(line["adapter"], line["step"]): line[key] for line in lines if key in line}


def agree(one, other, what):
    held = one.keys() == other.keys()
    for (adapter, step), loss in sorted(one.items()):
        found = other.get((adapter, step), float("nan"))
        off = abs(found - loss) / loss
        held = held and off <= 0.02
        print(f"{adapter:10} {what} {step}: {loss:.5f} {found:.5f} {100 * off:6.3f} %")
    return held


def main():
    one, other = losses(sys.argv[1], "loss"), losses(sys.argv[2], "loss")
    held = agree(one, other, "step") and bool(one)
    held = agree(*(losses(path, "eval_loss") for path in sys.argv[1:3]), "evaluation after step") and held
    for adapter in {adapter for adapter, _ in other}:
        steps = [loss for (name, _), loss in sorted(other.items()) if name == adapter]
        held = held and min(steps[-2:]) < 0.98 * steps[0]
    sys.exit(0 if held else 1)


if __name__ == "__main__":
    main()
