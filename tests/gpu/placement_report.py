#!/usr/bin/env python3
"""placement_report.py SECTION DIR RANKS DEVICE: what the JSON files of tests/gpu/placement say together. On GPUs also against
what is wanted. Exit code 1 when that is not reached, a measurement is missing, or placements disagree about the loss."""

import json
import pathlib
import sys

WANTED_OF_IDEAL, WANTED_EXPOSED, WANTED_MEMORY = 0.93, 0.03, 0.05
# The same documents and weights: only the order of sums differs. A loss is a mean over all rows.
LOSS_AGREES = {"fp32": 1e-5, "bf16": 2e-3}

held = True


def verdict(what, found, good):
    global held
    held = held and good
    print(f"  {what}: {found}: {'yes' if good else 'NO'}")


def read(path):
    return json.loads(path.read_text()) if path.exists() else None


def line(name, run, ideal):
    tokens = run["tokens_per_s_rank"]
    beside = f", {tokens / ideal:5.3f} of ideal" if ideal else ""
    buffers, used = (max(rank.get(key, 0) for rank in run["of_ranks"]) / 2**30 for key in ("device_bytes", "used_bytes"))
    by_driver = f", {used:.2f} used by the driver's count" if used > 0 else ""
    print(
        f"  {name:14} {tokens:9.0f} tokens/s a rank{beside}; waits for data {100 * run['exchange_share']:.2f} %, for ranks"
        f" {100 * run['waiting_share']:.2f} %; {run['transport']}, {run['trainers']} trainers, {buffers:.1f} GiB{by_driver}"
    )
    # A wait for the data of a rank that is slower looks like one for the link.
    parts = (("dense", ("dense_ns",)), ("attention", ("attention_ns",)), ("waits", ("exchange_ns", "waiting_ns")))
    say_stalls(name, run)
    said = [f"{part} {' '.join(f'{sum(rank[k] for k in keys) * 1e-9:.2f}' for rank in run['of_ranks'])}" for part, keys in parts]
    print(f"    seconds of each rank: {'; '.join(said)}")
    say_memory(name, run)


def say_stalls(name, run):
    """Of microbatches from the third on; older files do not say of how many."""
    counted = [rank for rank in run["of_ranks"] if rank.get("counted_microbatches")]
    if counted:
        waits, requests = (sum(rank[key] for rank in counted) for key in ("waits_inside", "allocations_inside"))
        # The CPU widens bf16 into memory that it asks for, and staging of these transports grows.
        may_ask = run["device"] == "cpu" or run["transport"] in ("mpi", "nccl")
        verdict(f"{name}: waits of the host, requests for memory inside microbatches", f"{waits}, {requests}",
                waits == 0 and (requests == 0 or may_ask))


def say_memory(name, run):
    """The plan, with the driver and libraries, beside the driver's count; of a device that has one."""
    apart = [rank["planned_bytes"] / rank["used_bytes"] - 1 for rank in run["of_ranks"] if rank.get("used_bytes") and "planned_bytes" in rank]
    if apart:
        said = ", ".join(f"{100 * a:+.1f} %" for a in apart)
        verdict(f"memory of {name} planned within {100 * WANTED_MEMORY:.0f} %", said, max(abs(a) for a in apart) <= WANTED_MEMORY)


def same_work(runs):
    """Documents and losses of runs that should have the same."""
    first_name, first = next(iter(runs.items()))
    for name, run in runs.items():
        verdict(f"{name} has the documents of {first_name}", run["documents"], all(run[k] == first[k] for k in ("documents", "longest")))
        apart = abs(run["loss"] - first["loss"]) / abs(first["loss"])
        verdict(f"{name} has the loss of {first_name}", f"{run['loss']:.6f}, {apart:.1e} apart", apart <= LOSS_AGREES[run["dtype"]])


def four(folder, ranks, judged):
    for lengths in ("pretrain", "prolong") if judged else ("pretrain",):
        names = ("local", "in_place", "pool", "in_place_nccl")
        runs = {n: read(folder / f"four_{ranks}_{lengths}_{n}.json") for n in names}
        print(f"{lengths} lengths on {ranks} ranks")
        for name in names[:3]:
            verdict(f"{name} was measured", runs[name] is not None, runs[name] is not None)
        runs = {n: r for n, r in runs.items() if r is not None}
        ideal = None
        if "local" in runs:
            local = runs["local"]
            rows = local["rows"] * len(local["steps_ns"])
            ideal = rows / (local["mean_own_ns"] * 1e-9) / local["ranks"]
            print(f"  {'ideal':14} {ideal:9.0f} tokens/s a rank: mean over the ranks of what each takes alone for its own documents")
        for name, run in runs.items():
            line(name, run, ideal)
        if runs:
            same_work(runs)
        in_place = runs.get("in_place") or runs.get("in_place_nccl")
        if in_place: # no rank always has everything before it looks
            waits = in_place["exchange_share"] + in_place["waiting_share"]
            verdict("waits of in_place were measured", f"{100 * waits:.2f} %", waits > 0)
        if judged and ideal and in_place:
            share = in_place["tokens_per_s_rank"] / ideal
            verdict(f"in place at least {WANTED_OF_IDEAL} of ideal", f"{share:.3f}", share >= WANTED_OF_IDEAL)
            exposed = in_place["exchange_share"]
            verdict(f"exposed exchange at most {WANTED_EXPOSED}", f"{exposed:.4f}", exposed <= WANTED_EXPOSED)


def long(folder, ranks):
    paths = sorted(folder.glob(f"long_{ranks}_*.json"), key=lambda p: int(p.stem.split("_")[-1]))
    print(f"one document on {ranks} ranks")
    verdict("it was trained on", [p.stem for p in paths], bool(paths))
    for path in paths:
        run = read(path)
        line(f"{run['layers']} layers", run, None)
        print(f"    {run['longest'][0]} rows in {run['steps_ns'][0] * 1e-9:.2f} s, loss {run['loss']:.4f}")


def main():
    section, folder, ranks, device = sys.argv[1], pathlib.Path(sys.argv[2]), int(sys.argv[3]), sys.argv[4]
    if section == "four":
        four(folder, ranks, device == "cuda")
    else:
        long(folder, ranks)
    sys.exit(0 if held else 1)


if __name__ == "__main__":
    main()
