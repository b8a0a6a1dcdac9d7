#!/usr/bin/env python3
"""trace_check.py TRACE TABLE LEAST: what the merged trace of a pool (two trainers, then a server) must show.

- Spans of a lane nest, and every arrow has one end and one beginning, on two ranks, in time.
- q, k, v end at tasks of the server and o at a finish of a trainer.
- Ping's tasks run on the server while both trainers are inside pong's dense step of the same layer: in at least
  LEAST of the (microbatch, layer) pairs of the forward. When all else holds and only that does not, it exits with 4: the
  machine may have run other programs then.
- The parts of each rank add up to the table that `cadre trace` printed (TABLE).
"""
import collections
import json
import sys

PARTS = ("dense", "attention", "exchange", "waiting")
events = json.load(open(sys.argv[1]))["traceEvents"]
SERVER, TRAINERS = 2, (0, 1)


def fail(text):
    sys.exit(f"{sys.argv[1]}: {text}")


def spans_of(lane_events):
    """(name, args, begin, end) of one lane, from its begin and end events; and the time of each part."""
    spans, stack, parts, since = [], [], collections.Counter(), 0.0
    for e in lane_events:
        if e["ph"] == "B":
            if stack:
                parts[stack[-1].get("cat")] += e["ts"] - since
            stack.append(e)
            since = e["ts"]
        elif e["ph"] == "E":
            if not stack:
                fail(f"an end without a beginning at {e['ts']}")
            b = stack.pop()
            parts[b.get("cat")] += e["ts"] - since
            since = e["ts"]
            spans.append((b["name"], b.get("args", {}), b["ts"], e["ts"]))
        elif e["ph"] == "X" and e.get("cat") in PARTS:
            if stack:
                parts[stack[-1].get("cat")] += e["ts"] - since
            parts[e["cat"]] += e["dur"]
            since = e["ts"] + e["dur"]
    if stack:
        fail(f"\"{stack[-1]['name']}\" of rank {stack[-1]['pid']} does not end")
    return spans, parts


lanes = collections.defaultdict(list)
for event in events:
    if event["ph"] != "M":
        lanes[event["pid"], event["tid"]].append(event)
compute, parts = {}, {}
for (rank, lane), of in sorted(lanes.items()):
    found = spans_of(of)
    if lane == 0:
        compute[rank], parts[rank] = found
if sorted(compute) != [0, 1, 2]:
    fail(f"ranks {sorted(compute)}")

# ==== arrows ====
starts = {(e["name"], e["id"]): e for e in events if e["ph"] == "s"}
ends = [e for e in events if e["ph"] == "f"]
if len(starts) != len(ends) or {(e["name"], e["id"]) for e in ends} != set(starts):
    fail(f"{len(starts)} arrows begin and {len(ends)} end")


def around(e):
    """The innermost span of its lane that an event lies in."""
    inside = [s for s in compute[e["pid"]] if s[2] <= e["ts"] <= s[3]]
    return min(inside, key=lambda s: s[3] - s[2])[0] if inside else ""


kinds = collections.Counter()
for end in ends:
    start = starts[end["name"], end["id"]]
    what, half = end["name"].split(" of ")
    if end["pid"] == start["pid"] or end["ts"] < start["ts"]:
        fail(f"an arrow from {start} to {end}")
    to_server = what in ("q,k,v", "d_o")
    want = ("begin", "tasks") if to_server else ("serve", "finish")
    if (end["pid"] == SERVER) != to_server or (start["pid"] == SERVER) == to_server:
        fail(f"{what} goes from rank {start['pid']} to {end['pid']}")
    for e, word in ((start, want[0]), (end, want[1])):
        if not around(e).startswith(word) or (half == "ping") != (" ping " in around(e)):
            # The tail's tasks, in pong, take the head's keys, which came with ping.
            if not (word == "tasks" and around(e).startswith("tasks")):
                fail(f"{end['name']}: an end in \"{around(e)}\", wanted {word}")
    kinds[what] += 1
if len(kinds) != 4:
    fail(f"arrows of {dict(kinds)}")

# ==== overlap ====
def of_name(rank, name):
    found = collections.defaultdict(list)
    for span, args, begin, end in compute[rank]:
        if span == name:
            found[args["microbatch"], args["layer"]].append((begin, end))
    return found


tasks = of_name(SERVER, "tasks ping forward")
dense = [of_name(rank, "dense pong forward") for rank in TRAINERS]
pairs = [pair for pair in tasks if all(pair in d for d in dense)]
if not pairs or {p[0] for p in pairs} != {p[0] for p in dense[0]}:
    fail(f"ping's tasks of {sorted(tasks)}")
under = 0
for pair in pairs:
    (b0, e0), (b1, e1) = dense[0][pair][0], dense[1][pair][0]
    under += any(max(b, b0, b1) < min(e, e0, e1) for b, e in tasks[pair])

# ==== the table ====
rows = [line.split() for line in open(sys.argv[2]) if "%" in line]
for rank, row in enumerate(rows):
    of = [e for (pid, _), lane in lanes.items() if pid == rank for e in lane]
    whole = max(e["ts"] + e.get("dur", 0) for e in of) - min(e["ts"] for e in of)
    want = [100 * parts[rank][part] / whole for part in PARTS]
    want.append(100 - sum(want))
    got = [float(cell.rstrip("%")) for cell in row[-5:]]
    if abs(sum(got) - 100) > 0.3 or any(abs(g - w) > 0.06 for g, w in zip(got, want)):
        fail(f"rank {rank}: the table has {got}, the events {want}")
if len(rows) != 3:
    fail(f"the table has {len(rows)} rows")
if under < float(sys.argv[3]) * len(pairs):
    print(f"ping's tasks run under both trainers' pong in {under} of {len(pairs)} layers", file=sys.stderr)
    sys.exit(4)
print(f"{len(events)} events, {len(ends)} arrows, ping under pong in {under} of {len(pairs)} layers")
