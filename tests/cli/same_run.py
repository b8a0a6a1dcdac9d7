#!/usr/bin/env python3
"""tests/cli/same_run.py A B [TOLERANCE]: whether two runs learned the same.

Without a tolerance: the numbers of metrics.jsonl in their order, times and what is yet to be done aside, and the tensors of every export have the
same bits. With one: steps, losses and norms of each adapter agree relative to it, and tensors by their norm, whatever
the order of the steps and the microbatches they fell in."""
import array
import json
import pathlib
import struct
import sys

NOT_LEARNED = ("tokens_per_second", "total_steps")  # and times, "..._s"
LAYOUT = ("microbatch", "pad_share")


def records(run, leave_out):
    lines = (run / "metrics.jsonl").read_text().splitlines()
    kept = lambda key: key not in leave_out and not key.endswith("_s")
    return [{key: value for key, value in json.loads(line).items() if kept(key)} for line in lines]


def exports(run):
    return {path.relative_to(run): path for path in sorted(run.glob("**/*.safetensors")) if "checkpoints" not in path.parts}


def floats(path):
    data = path.read_bytes()
    return array.array("f", data[8 + struct.unpack("<Q", data[:8])[0] :])


def near(a, b, tolerance):
    if isinstance(a, float):
        return abs(a - b) <= tolerance * abs(a)
    return a == b


def main(a, b, tolerance):
    leave_out = NOT_LEARNED + (LAYOUT if tolerance else ())
    ours, theirs = records(a, leave_out), records(b, leave_out)
    if tolerance:
        key = lambda record: (record["adapter"], record["step"], "eval_loss" in record)
        ours, theirs = sorted(ours, key=key), sorted(theirs, key=key)
    if len(ours) != len(theirs):
        return f"{len(ours)} and {len(theirs)} records"
    for x, y in zip(ours, theirs):
        same = x == y if not tolerance else x.keys() == y.keys() and all(near(x[k], y[k], tolerance) for k in x)
        if not same:
            return f"records differ:\n    {x}\n    {y}"
    if exports(a).keys() != exports(b).keys() or not exports(a):
        return f"exports: {sorted(map(str, exports(a)))} and {sorted(map(str, exports(b)))}"
    for name, path in exports(a).items():
        if not tolerance and path.read_bytes() != exports(b)[name].read_bytes():
            return f"{name} differs"
        if tolerance:
            x, y = floats(path), floats(exports(b)[name])
            off = sum((p - q) ** 2 for p, q in zip(x, y)) ** 0.5
            if len(x) != len(y) or off > tolerance * sum(p * p for p in x) ** 0.5:
                return f"{name} differs by {off}"
    return None


if __name__ == "__main__":
    verdict = main(pathlib.Path(sys.argv[1]), pathlib.Path(sys.argv[2]), float(sys.argv[3]) if len(sys.argv) > 3 else None)
    if verdict:
        sys.exit(f"{sys.argv[1]} and {sys.argv[2]}: {verdict}")
