#!/usr/bin/env python3
"""A model of the barriers between the two blocks of a pair in the attention forward (PAIR in kernels/cuda/attention/fwd_sm90_kernel.cuh).

    pair_model.py

What the threads wait for, arrive at, copy and read is written down here as the kernel does it, a warp for a warpgroup, with the phase of
the barrier that is meant. None of it depends on data but for the numbers of tiles, so which event must come after which is one partial
order, and what holds in it holds in every interleaving. (barrier_model.py walks through interleavings; those of six threads and
their copies are too many.) It is checked for a few lists of items, each so many tiles of keys, and for random ones:

- nobody waits for ever: the order has no cycle, and each phase that is waited for gets its arrivals and bytes;
- each arrival, and each byte, comes after the phase before the one that is meant, so that it counts in that one;
- a wait by parity begins after the phase before, and the phase after cannot be over before it passes;
- tile n lands in a panel after all have read what was there, and before anybody reads it;
- nothing is sent to a block that has not begun or has left.

The model is also broken on purpose, in ways that must each be noticed."""

import random
import sys

STAGES = 2  # of q, of keys, of values
CONSUMERS = 2
LISTS = [[1], [2], [7], [1, 1, 1, 1, 1, 1], [1, 5, 1, 4, 2], [2, 1, 3, 1, 1, 6]]
RANDOM_LISTS = 20

# What is broken; each shows with ITEMS_OF_BROKEN.
BREAKAGES = [
    "no meeting before the first copy",
    "no meeting at the end",
    "a stage is freed by the block's own consumers alone",
    "a stage is freed by half of the consumers",
    "a barrier expects one panel",
    "the second block has a tile less",
    "values are freed before they are multiplied",
    "keys are freed before they are multiplied",
    "a copy does not wait for its stage",
    "the first turn is not given",
    "both loaders fetch the same panel",
]
ITEMS_OF_BROKEN = [3, 1, 4]


class Events:
    """Events, each with those that come directly before it; what they mean for barriers and panels."""

    def __init__(self):
        self.names, self.before = [], []
        self.last = {}  # thread: its latest event
        self.arrivals, self.counts, self.expected = {}, {}, {}  # (barrier, phase): events; barrier: how many; (barrier, phase): copies
        self.landings = {}  # (barrier, phase): events
        self.waits = []  # (event, the one before it, barrier, phase, by parity)
        self.panels = {}  # (block, what, stage, panel): {tile: ([landings], [reads])}
        self.remote = []  # (event, block)

    def add(self, name, before):
        self.names.append(name)
        self.before.append([event for event in before if event is not None])
        return len(self.names) - 1

    def does(self, thread, name):
        self.last[thread] = self.add(f"{thread} {name}", [self.last.get(thread)])
        return self.last[thread]

    def arrive(self, thread, barrier, phase, block=None):
        event = self.does(thread, f"arrives at {barrier}, phase {phase}")
        self.arrivals.setdefault((barrier, phase), []).append(event)
        if block is not None:
            self.remote.append((event, block))

    def wait(self, thread, barrier, phase, parity=True):
        start = self.does(thread, f"comes to {barrier}, phase {phase}")
        self.waits.append((self.does(thread, f"passes {barrier}, phase {phase}"), start, barrier, phase, parity))

    def meet(self, thread, barrier):
        self.arrive(thread, barrier, 0)
        self.wait(thread, barrier, 0, parity=False)

    def panel(self, block, what, n, panel):
        return self.panels.setdefault((block, what, n % STAGES, panel), {}).setdefault(n, ([], []))

    def copy(self, thread, block, what, n, panel, barrier):
        start = self.does(thread, f"copies {what} {n} panel {panel} to block {block}")
        landing = self.add(f"{what} {n} panel {panel} lands in block {block}", [start])
        self.landings.setdefault((barrier, n // STAGES), []).append(landing)
        self.panel(block, what, n, panel)[0].append(landing)
        self.remote.append((landing, block))

    def read(self, thread, block, what, n):
        event = self.does(thread, f"reads {what} {n}")
        for panel in range(1 if what == "q" else 2):
            self.panel(block, what, n, panel)[1].append(event)


def begin(events, thread, b, broken):
    events.meet(thread, f"block {b}")
    if broken != "no meeting before the first copy":
        events.meet(thread, "the pair's first")


def end(events, thread, broken):
    if broken != "no meeting at the end":
        events.meet(thread, "the pair's last")
    events.does(thread, "leaves")


def loader(events, b, items, broken):
    thread = f"loader {b}"
    events.does(thread, "makes barriers")
    begin(events, thread, b, broken)
    if broken == "the second block has a tile less" and b == 1:
        items = items[:-1] + [items[-1] - 1]

    def fetch(what, n):
        full = f"full {what}{n % STAGES} of {b}"
        if broken != "a copy does not wait for its stage":
            events.wait(thread, f"empty {what}{n % STAGES} of {b}", n // STAGES - 1)
        events.arrive(thread, full, n // STAGES)
        events.expected[full, n // STAGES] = 1 if what == "q" or broken == "a barrier expects one panel" else 2
        if what == "q":
            events.copy(thread, b, what, n, 0, full)
            return
        panel = 0 if broken == "both loaders fetch the same panel" else b
        for block in range(2):
            events.copy(thread, block, what, n, panel, f"full {what}{n % STAGES} of {block}")

    n = 0
    for item, tiles in enumerate(items):
        for step in range(tiles):
            fetch("k", n)
            if step == 0:
                fetch("q", item)
            fetch("v", n)
            n += 1
    end(events, thread, broken)


def consumer(events, b, c, items, broken):
    thread = f"consumer {c} of {b}"
    begin(events, thread, b, broken)
    given = taken = 0  # turns
    n = 0

    def full(what, tile):
        events.wait(thread, f"full {what}{tile % STAGES} of {b}", tile // STAGES)

    def free(what, tile):
        own = what == "q" or broken == "a stage is freed by the block's own consumers alone"
        for block in [b] if own else range(2):
            events.arrive(thread, f"empty {what}{tile % STAGES} of {block}", tile // STAGES, block)

    def multiplied(what, tile, early):
        """The products with a tile have been made: it is free. (early: it was freed when they began.)"""
        if early:
            free(what, tile)
        events.read(thread, b, what, tile)
        if not early:
            free(what, tile)

    def give_turn():
        nonlocal given
        events.arrive(thread, f"turn {c ^ 1} of {b}", given)
        given += 1

    keys_early = broken == "keys are freed before they are multiplied"
    values_early = broken == "values are freed before they are multiplied"
    if c == CONSUMERS - 1 and broken != "the first turn is not given":
        give_turn()
    for item, tiles in enumerate(items):
        full("q", item)
        full("k", n)
        events.read(thread, b, "q", item)
        events.read(thread, b, "k", n)
        multiplied("k", n, keys_early)
        for n in range(n + 1, n + tiles):
            full("k", n)
            events.arrive(thread, f"turn {c} of {b}", taken)
            events.wait(thread, f"turn {c} of {b}", taken, parity=False)
            taken += 1
            events.read(thread, b, "k", n)
            full("v", n - 1)
            events.read(thread, b, "v", n - 1)
            give_turn()
            multiplied("k", n, keys_early)
            multiplied("v", n - 1, values_early)
        multiplied("q", item, False)
        full("v", n)
        events.read(thread, b, "v", n)
        multiplied("v", n, values_early)
        n += 1
    end(events, thread, broken)


def all_events(items, broken):
    events = Events()
    counts = events.counts
    counts["the pair's first"] = counts["the pair's last"] = 2 * (1 + CONSUMERS)
    freed = 1 if broken in ("a stage is freed by the block's own consumers alone", "a stage is freed by half of the consumers") else 2
    for b in range(2):
        counts[f"block {b}"] = 1 + CONSUMERS
        for c in range(CONSUMERS):
            counts[f"turn {c} of {b}"] = 2
        for stage in range(STAGES):
            for what in "qkv":
                counts[f"full {what}{stage} of {b}"] = 1
                counts[f"empty {what}{stage} of {b}"] = CONSUMERS * (1 if what == "q" else freed)
        loader(events, b, items, broken)
        for c in range(CONSUMERS):
            consumer(events, b, c, items, broken)
    return events


def end_phases(events):
    """Adds the ends of phases: ({(barrier, phase): event}, what is wrong or None)"""
    ends = {}
    for (barrier, phase), arrivals in sorted(events.arrivals.items(), key=lambda entry: entry[0][1]):
        landings = events.landings.get((barrier, phase), [])
        expected = events.expected.get((barrier, phase), 0)
        if len(arrivals) > events.counts[barrier]:
            return ends, f"{len(arrivals)} arrivals at {barrier}, phase {phase}, of {events.counts[barrier]}"
        if len(landings) > expected:
            return ends, f"{len(landings)} copies are counted by {barrier}, phase {phase}, of {expected}"
        if len(arrivals) == events.counts[barrier] and len(landings) == expected:
            end_before = [ends.get((barrier, phase - 1))]
            ends[barrier, phase] = events.add(f"{barrier}, phase {phase} ends", arrivals + landings + end_before)
    for event, _, barrier, phase, _ in events.waits:
        if phase >= 0:
            if (barrier, phase) not in ends:
                return ends, f"for ever: {events.names[event]}"
            events.before[event].append(ends[barrier, phase])
    return ends, None


def closure(events):
    """Of each event the set (bits) of all that come before it; None when some wait for each other."""
    after = [[] for _ in events.before]
    missing = [len(before) for before in events.before]
    for event, before in enumerate(events.before):
        for earlier in before:
            after[earlier].append(event)
    past = [0] * len(after)
    ready = [event for event, count in enumerate(missing) if count == 0]
    done = 0
    while ready:
        event = ready.pop()
        done += 1
        for later in after[event]:
            past[later] |= past[event] | 1 << event
            missing[later] -= 1
            if missing[later] == 0:
                ready.append(later)
    return past if done == len(past) else None


def fault_of(items, broken=None):
    """None, or what is wrong."""
    events = all_events(items, broken)
    ends, fault = end_phases(events)
    if fault:
        return fault
    past = closure(events)
    if past is None:
        return "some wait for each other"
    names = events.names

    def follows(event, earlier):
        return past[event] >> earlier & 1

    for counted in (events.arrivals, events.landings):
        for (barrier, phase), arrivals in counted.items():
            for event in arrivals:
                if phase > 0 and not follows(event, ends[barrier, phase - 1]):
                    return f"{names[event]}, but may come in phase {phase - 1} of {barrier}"
    for event, start, barrier, phase, parity in events.waits:
        if parity and phase > 0 and not follows(start, ends[barrier, phase - 1]):
            return f"{names[event]}, but phase {phase - 1} may not be over"
        if parity and (barrier, phase + 1) in ends and not follows(ends[barrier, phase + 1], event):
            return f"{names[event]}, but phase {phase + 1} may be over"
    for held in events.panels.values():
        for n, (landings, reads) in held.items():
            if reads and len(landings) != 1:
                return f"{len(landings)} copies where one is read: {names[reads[0]]}"
            for event in reads:
                if not follows(event, landings[0]):
                    return f"{names[event]}, but {names[landings[0]]} may not have been"
                for later in held.get(n + STAGES, ([], []))[0]:
                    if not follows(later, event):
                        return f"{names[later]}, but {names[event]} may come after"
    leaves = {b: [event for thread, event in events.last.items() if thread.endswith(str(b))] for b in range(2)}
    for event, block in events.remote:
        if not follows(event, names.index(f"loader {block} makes barriers")):
            return f"{names[event]}, which may not have begun"
        if not any(follows(left, event) for left in leaves[block]):
            return f"{names[event]}, which may have left"
    return None


def main():
    faults = []
    random.seed(1)
    lists = LISTS + [[random.randint(1, 9) for _ in range(random.randint(1, 8))] for _ in range(RANDOM_LISTS)]
    for items in lists:
        fault = fault_of(items)
        if fault:
            faults.append(f"items of {items} tiles: {fault}")
    for broken in BREAKAGES:
        if fault_of(ITEMS_OF_BROKEN, broken) is None:
            faults.append(f"not noticed: {broken}")
    for fault in faults:
        print(f"pair_model.py: {fault}", file=sys.stderr)
    if not faults:
        print(f"pair_model.py: {len(lists)} lists of items hold; {len(BREAKAGES)} breakages noticed")
    return 1 if faults else 0


if __name__ == "__main__":
    sys.exit(main())
