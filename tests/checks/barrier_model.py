#!/usr/bin/env python3
"""A model of the barriers through which dq leaves a block of the five-product attention backward (dqkv_sm90_sums.cuh).

    barrier_model.py

Two consumer warps, and the two threads that wait for turns and add. Their waits, arrivals and uses of the buffer of staged dq are
written down here as the kernel makes them; what other blocks do is left out (a turn has always come). Every interleaving of every
number of tiles up to MOST, with every number of staged ones, is walked through: for the order of head dim 128, where dq leaves a
turn late and the sums are fetched (FETCH), and for that of head dim 64, with the sums read from memory and fetched.

What must hold: nobody waits for ever; a wait by parity passes when its own phase is over and not for the sake of another phase of
that parity; who reads the buffer finds what is meant for it. The model is also broken on purpose in four ways, each of which must
be noticed."""

import sys

MOST = 7
CONSUMERS = 2

# A wait names a phase: barrier, number; it passes when that many more phases than the number are over (-1: at once).
# Breakages: what is left out of the program of the adding threads, or of the consumers.
BREAKAGES = ["wait for ds", "wait for the last staged", "wait for the sum read", "arrival of the sum read"]


def consumer(tiles, staged, fetch, late, me, without):
    program = []

    def stage(tile):
        program.extend([("wait", "stage empty", tile - 1), ("stage", tile, me), ("arrive", f"staged {tile % 2}")])

    def store(tile):
        program.append(("wait", f"granted {tile % 2}", (tile - staged) // 2))
        if fetch:
            program.append(("read", tile))
            if without != "arrival of the sum read":
                program.append(("arrive", "sum empty"))

    def leave(tile):
        if tile < staged:
            stage(tile)
        else:
            store(tile)

    for tile in range(tiles):
        if late and tile > 1:
            leave(tile - 2)
        now, other = tile % 2, tile % 2 ^ 1
        program += [("wait", f"ds empty {now}", tile // 2 - 1), ("arrive", f"ds full {now}")]
        if tile > 0:
            program += [("wait", f"ds full {other}", (tile - 1) // 2), ("arrive", f"ds empty {other}")]
            if not late:
                leave(tile - 1)
    if late and tiles > 1:
        leave(tiles - 2)
    program.append(("wait", f"ds full {(tiles - 1) % 2}", (tiles - 1) // 2))
    leave(tiles - 1)
    return program


def adder(tiles, staged, fetch, first, without):
    program = []
    for tile in range(first, tiles, 2):
        if tile < staged:
            program += [("wait", f"staged {first}", tile // 2), ("add", tile), ("arrive", "stage empty")]
            continue
        if without != "wait for ds":
            program.append(("wait", f"ds full {first}", tile // 2))
        if fetch:
            if tile > staged and without != "wait for the sum read":
                program.append(("wait", "sum empty", tile - staged - 1))
            if tile == staged > 0 and without != "wait for the last staged":
                program.append(("wait", "stage empty", staged - 1))
            program.append(("fetch", tile))
        program.append(("arrive", f"granted {first}"))
    return program


ARRIVALS = {"stage empty": 1, "sum empty": CONSUMERS}
for parity in "01":
    for barrier, arrivals in (("ds full", CONSUMERS), ("ds empty", CONSUMERS), ("staged", CONSUMERS), ("granted", 1)):
        ARRIVALS[f"{barrier} {parity}"] = arrivals
PLACE = {name: i for i, name in enumerate(ARRIVALS)}


def step(operation, barriers, buffer):
    """(barriers, buffer) after it; None: it has to wait; a text: what is wrong."""
    kind, what = operation[:2]
    if kind == "wait":
        over, phase = barriers[PLACE[what]][0], operation[2]
        passes = (over - 1) % 2 == phase % 2
        if passes != (over > phase):
            return f"a wait for phase {phase} of \"{what}\" sees the parity of phase {over - 1}"
        return (barriers, buffer) if passes else None
    if kind == "arrive":
        over, arrived = barriers[PLACE[what]]
        arrived += 1
        after = (over + 1, 0) if arrived == ARRIVALS[what] else (over, arrived)
        return barriers[: PLACE[what]] + (after,) + barriers[PLACE[what] + 1 :], buffer
    if kind == "stage":
        return barriers, tuple(("dq", what) if i == operation[2] else half for i, half in enumerate(buffer))
    if kind == "fetch":
        return barriers, (("sum", what),) * CONSUMERS
    wanted = (("dq" if kind == "add" else "sum", what),) * CONSUMERS
    return (barriers, buffer) if buffer == wanted else f"{kind} of tile {what} finds {buffer}"


def walk(tiles, staged, fetch, late, without=None):
    """None, or what is wrong."""
    programs = [consumer(tiles, staged, fetch, late, i, without) for i in range(CONSUMERS)]
    programs += [adder(tiles, staged, fetch, i, without) for i in range(2)]
    start = ((0,) * len(programs), ((0, 0),) * len(ARRIVALS), (None,) * CONSUMERS)
    seen, todo = {start}, [start]
    while todo:
        at, barriers, buffer = todo.pop()
        stuck = any(place < len(program) for place, program in zip(at, programs))
        for thread, program in enumerate(programs):
            if at[thread] == len(program):
                continue
            after = step(program[at[thread]], barriers, buffer)
            if isinstance(after, str):
                return after
            if after is None:
                continue
            stuck = False
            state = (at[:thread] + (at[thread] + 1,) + at[thread + 1 :], *after)
            if state not in seen:
                seen.add(state)
                todo.append(state)
        if stuck:
            return f"all wait, at {at}"
    return None


def every(fetch, late, without=None):
    for tiles in range(1, MOST + 1):
        for staged in range(tiles + 1):
            fault = walk(tiles, staged, fetch, late, without)
            if fault:
                how = ("fetched" if fetch else "from memory") + (", late" if late else "")
                return f"{tiles} tiles, {staged} staged, {how}: {fault}"
    return None


ORDERS = [(True, True), (False, False), (True, False)]  # fetch, late


def main():
    faults = [fault for fetch, late in ORDERS if (fault := every(fetch, late))]
    for fetch, late in ORDERS:
        breakages = BREAKAGES if fetch else BREAKAGES[:1]
        faults += [f"not noticed: without the {without}" for without in breakages if every(fetch, late, without) is None]
    for fault in faults:
        print(f"barrier_model.py: {fault}", file=sys.stderr)
    if not faults:
        print(f"barrier_model.py: up to {MOST} tiles hold; {len(BREAKAGES)} breakages noticed")
    return 1 if faults else 0


if __name__ == "__main__":
    sys.exit(main())
