#!/usr/bin/env python3
"""full_size_report.py DIR: what `cadre train` of `tests/gpu/run full_size` did, beside `cadre bench train` and `cadre plan`; exit code
1 when it is slower than the bench, or the host waits, or memory is not as planned."""

import json
import math
import pathlib
import re
import statistics
import sys

WANTED_OF_BENCH, WANTED_MEMORY = 0.97, 0.05
ROWS, FIRST = 16384, 4  # a step; of the first steps some load kernels


def main():
    folder = pathlib.Path(sys.argv[1])
    bench = json.loads((folder / "full_size_bench.json").read_text())
    plan = json.loads((folder / "full_size_plan.json").read_text())
    said = (folder / "full_size_train.txt").read_text()
    steps = [json.loads(line) for line in (folder / "full_size/run/metrics.jsonl").read_text().splitlines()]
    rate = ROWS / statistics.median(step["step_time_s"] for step in steps[FIRST:])
    planned = max(rank["device_bytes"] + rank["driver_bytes"] for rank in plan["ranks"]) / 2**20
    used = float(re.search("driver's count: ([0-9.]+) MiB", said)[1])
    waits = re.search("between microbatches: ([0-9]+); for late results: ([0-9]+);", said)
    asked = re.search("memory inside microbatches: ([0-9]+)", said)
    held = True
    for what, found, good in (
        ("cadre train, tokens/s", f"{rate:.0f}, bench {bench['tokens_per_s']:.0f}, {rate / bench['tokens_per_s']:.3f}",
         rate >= WANTED_OF_BENCH * bench["tokens_per_s"]),
        ("waits of the host", f"{waits[1]}; {waits[2]}", waits[1] == waits[2] == "0"),
        ("requests for memory", asked[1], asked[1] == "0"),
        ("memory", f"{planned:.0f} MiB planned, {used:.0f} used", abs(planned / used - 1) <= WANTED_MEMORY),
        ("losses", f"{steps[0]['loss']:.4f} to {steps[-1]['loss']:.4f}", all(math.isfinite(step["loss"]) for step in steps)),
    ):  # fmt: skip
        held = held and good
        print(f"{what}: {found}: {'yes' if good else 'NO'}")
    sys.exit(0 if held else 1)


if __name__ == "__main__":
    main()
