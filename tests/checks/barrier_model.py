#!/usr/bin/env python3
"""A model of the barriers through which dq leaves a block of the five-product attention backward (dqkv_sm90_sums.cuh).

    barrier_model.py

Two consumer warps, and the two threads that wait for turns and add. Their waits, arrivals and uses of the buffer of staged dq are
written down here as the kernel makes them; what other blocks do is left out (a turn has always come). Every interleaving of every
number of tiles up to MOST, with every number of staged ones, is walked through: for the order of head dim 128, where dq leaves a
turn late and the sums are fetched (FETCH), and for that of head dim 64, with the sums read from memory and fetched.

What must hold: nobody waits for ever; a wait by parity passes when its own phase is over and not for the sake of another phase of
that parity; who reads the buffer finds what is meant for it; between an access of a consumer and one of the copy engine lies a
fence between threads and engine, also where the consumer has only read. The model is also broken on purpose in six ways, each of
which must be noticed.

Then the same programs as compute-sanitizer sees them, with two threads a warp: racecheck must report nothing, and of the version of
2026-11-30, whose warps arrived by their first thread, what it did report; synccheck must report nothing."""

import sys

MOST = 7
CONSUMERS = 2

# A wait names a phase: barrier, number; it passes when that many more phases than the number are over (-1: at once).
# Breakages: what is left out of the program of the adding threads, or of the consumers.
BREAKAGES = [
    "wait for ds",
    "fence of the staged",
    "wait for the last staged",
    "wait for the sum read",
    "arrival of the sum read",
    "fence of the sum read",
]
UNFETCHED = 2  # those that are there without FETCH


def consumer(tiles, staged, fetch, late, me, without):
    program = []

    def stage(tile):
        program.extend([("wait", "stage empty", tile - 1), ("stage", tile, me)])
        if without != "fence of the staged":
            program.append(("fence", None))
        program.append(("arrive", f"staged {tile % 2}"))
        if fetch and tile + 1 == staged:
            program.append(("arrive", "sum empty"))

    def store(tile):
        program.append(("wait", f"granted {tile % 2}", (tile - staged) // 2))
        if fetch:
            program.append(("read", tile, me))
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
            before = tile - staged + (staged > 0)
            if before > 0 and without != "wait for the sum read":
                program.append(("wait", "sum empty", before - 1))
            if tile == staged > 0 and without != "wait for the last staged":
                program.append(("wait", "stage empty", staged - 1))
            if without != "fence of the sum read":
                program.append(("fence", None))
            program.append(("fetch", tile))
        program.append(("arrive", f"granted {first}"))
    return program


ARRIVALS = {"stage empty": 1, "sum empty": CONSUMERS}
for parity in "01":
    for barrier, arrivals in (("ds full", CONSUMERS), ("ds empty", CONSUMERS), ("staged", CONSUMERS), ("granted", 1)):
        ARRIVALS[f"{barrier} {parity}"] = arrivals
PLACE = {name: i for i, name in enumerate(ARRIVALS)}


def step(operation, barriers, buffer):
    """(barriers, buffer) after it; None: it has to wait; a text: what is wrong. The buffer: of each consumer's half what lies there,
    and whether the consumer has touched it since the last fence. A fence that does not come after a touch for certain comes before
    it in another interleaving."""
    kind, what = operation[:2]
    if kind == "fence":
        return barriers, tuple((content, False) for content, _ in buffer)
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
        return barriers, tuple((("dq", what), True) if i == operation[2] else half for i, half in enumerate(buffer))
    if kind == "read":
        if buffer[operation[2]][0] != ("sum", what):
            return f"read of tile {what} finds {buffer}"
        return barriers, tuple((half[0], True) if i == operation[2] else half for i, half in enumerate(buffer))
    if any(touched for _, touched in buffer):
        return f"no fence between a consumer's access and {kind} of tile {what}"
    if kind == "fetch":
        return barriers, ((("sum", what), False),) * CONSUMERS
    return (barriers, buffer) if buffer == ((("dq", what), False),) * CONSUMERS else f"add of tile {what} finds {buffer}"


def walk(tiles, staged, fetch, late, without=None):
    """None, or what is wrong."""
    programs = [consumer(tiles, staged, fetch, late, i, without) for i in range(CONSUMERS)]
    programs += [adder(tiles, staged, fetch, i, without) for i in range(2)]
    start = ((0,) * len(programs), ((0, 0),) * len(ARRIVALS), ((None, False),) * CONSUMERS)
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


LANES = 2
AS_THREADS = {"sum empty"}  # at which all threads of a warp arrive
SEEN_BEFORE = {("read", "fetch", 1), ("stage", "fetch", 1)}


def happens(programs, arrivals):
    """The operations in an order in which they can happen, each with its thread and that thread's clock: how many operations of every
    thread happen before it, as barriers say; for an arrival also the number of its phase. Which do is the same in all orders."""
    clocks = [[0] * len(programs) for _ in programs]
    at, phases = [0] * len(programs), {name: [] for name in arrivals}  # of a barrier its phases: arrivals, joined clocks
    while any(place < len(program) for place, program in zip(at, programs)):
        for thread, program in enumerate(programs):
            while at[thread] < len(program):
                operation, clock, phase = program[at[thread]], clocks[thread], None
                kind, what = operation[:2]
                if kind == "wait" and operation[2] >= 0:
                    if len(phases[what]) <= operation[2] or phases[what][operation[2]][0] < arrivals[what]:
                        break
                    clock[:] = map(max, clock, phases[what][operation[2]][1])
                at[thread] += 1
                clock[thread] += 1
                if kind == "arrive":
                    if not phases[what] or phases[what][-1][0] == arrivals[what]:
                        phases[what].append([0, [0] * len(programs)])
                    phase, last = len(phases[what]) - 1, phases[what][-1]
                    last[:] = last[0] + 1, list(map(max, last[1], clock))
                yield thread, operation, list(clock), phase


def in_lanes(tiles, staged, fetch, late, as_threads):
    """What happens, with LANES threads a warp: those of consumers first."""
    programs = []
    for me in range(CONSUMERS):
        program = consumer(tiles, staged, fetch, late, me, None)
        for lane in range(LANES):
            programs.append([o for o in program if lane == 0 or o[0] != "arrive" or o[1] in as_threads])
    programs += [adder(tiles, staged, fetch, i, None) for i in range(2)]
    return happens(programs, {name: count * (LANES if name in as_threads else 1) for name, count in ARRIVALS.items()})


def seen_races(tiles, staged, late, as_threads):
    """What racecheck reports of the buffer, as (earlier, later access, lane): it knows what a thread did from that thread's own
    arrivals, also where __syncwarp stands between it and the one that arrives; copies into shared memory it knows, those out of it
    not."""
    touches, races = [], set()
    for thread, (kind, *_), clock, _ in in_lanes(tiles, staged, True, late, as_threads):
        if kind not in ("stage", "read", "fetch"):
            continue
        for other, earlier, when in touches:
            if "fetch" in (kind, earlier) and clock[other] < when:  # a thread stages and reads its own part
                races.add((earlier, kind, other % LANES))
        touches.append((thread, kind, clock[thread]))
    return races


def unwaited(tiles, staged, fetch, late):
    """An arrival before which nobody has seen the end of the phase before: PTX wants that somebody has, and synccheck reports it."""
    waits = []
    for thread, operation, clock, phase in in_lanes(tiles, staged, fetch, late, AS_THREADS):
        if operation[0] == "wait":
            waits.append((operation[1:], thread, clock[thread]))
        if phase and not any(of == (operation[1], phase - 1) and clock[by] >= when for of, by, when in waits):
            return f"{tiles} tiles, {staged} staged: nobody has waited for phase {phase - 1} of \"{operation[1]}\""
    return None


def tools():
    """What is wrong with what racecheck and synccheck see."""
    before = set()
    for fetch, late in ORDERS:
        for tiles in range(1, MOST + 1):
            for staged in range(tiles + 1):
                if fault := unwaited(tiles, staged, fetch, late):
                    return [fault]
                if fetch and (races := seen_races(tiles, staged, late, AS_THREADS)):
                    return [f"{tiles} tiles, {staged} staged: racecheck reports {sorted(races)}"]
                before |= seen_races(tiles, staged, late, set())
    if before != SEEN_BEFORE:
        return [f"of warps that arrive by their first thread racecheck would report {sorted(before)}"]
    return []


ORDERS = [(True, True), (False, False), (True, False)]  # fetch, late


def main():
    faults = [fault for fetch, late in ORDERS if (fault := every(fetch, late))]
    for fetch, late in ORDERS:
        breakages = BREAKAGES if fetch else BREAKAGES[:UNFETCHED]
        faults += [f"not noticed: without the {without}" for without in breakages if every(fetch, late, without) is None]
    faults = faults or tools()
    for fault in faults:
        print(f"barrier_model.py: {fault}", file=sys.stderr)
    if not faults:
        print(f"barrier_model.py: up to {MOST} tiles hold; {len(BREAKAGES)} breakages noticed")
    return 1 if faults else 0


if __name__ == "__main__":
    sys.exit(main())
