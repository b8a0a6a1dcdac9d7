"""How far a run is from what transformers and PEFT computed (README.md).

    compare.py tensors OURS THEIRS SCALE    the worst tensor of two safetensors files; SCALE: of B in ours
    compare.py steps RUN FAMILY ADAPTER     losses, gradient norms and rates of the ten steps in RUN/metrics.jsonl

Prints one number: the norm of the difference over the norm of what is wanted.
"""

import array
import json
import struct
import sys

STEPS = 10


def read(path):
    """{name: array of floats} of a safetensors file."""
    with open(path, "rb") as file:
        data = file.read()
    size = struct.unpack("<Q", data[:8])[0]
    found = {}
    for name, entry in json.loads(data[8 : 8 + size]).items():
        if name != "__metadata__":
            begin, end = entry["data_offsets"]
            kind = {"F32": "f", "F64": "d"}[entry["dtype"]]
            found[name] = array.array(kind, data[8 + size + begin : 8 + size + end])
    return found


def distance(ours, theirs):
    assert len(ours) == len(theirs)
    return (sum((x - y) ** 2 for x, y in zip(ours, theirs)) / sum(y * y for y in theirs)) ** 0.5


def tensors(ours, theirs, scale=1.0):
    ours, theirs = read(ours), read(theirs)
    assert ours.keys() == theirs.keys(), sorted(ours.keys() ^ theirs.keys())
    return max(distance([x / (scale if "lora_B" in name else 1) for x in ours[name]], theirs[name]) for name in theirs)


def steps(run, family, adapter):
    expected = read(family + "/expected.safetensors")
    with open(run + "/metrics.jsonl", encoding="utf-8") as file:
        records = [record for record in map(json.loads, file) if record["adapter"] == adapter]
    assert [record["step"] for record in records] == list(range(1, STEPS + 1)), records
    names = {"loss": "losses", "grad_norm": "grad_norms", "learning_rate": "learning_rates"}
    return max(
        distance([record[key] for record in records], expected[f"{adapter}.{name}"]) for key, name in names.items()
    )


if __name__ == "__main__":
    if sys.argv[1] == "tensors":
        print(tensors(sys.argv[2], sys.argv[3], float(sys.argv[4])))
    else:
        print(steps(*sys.argv[2:]))
