#!/usr/bin/env python3
"""How evenly the sm_90a attention forward spreads its items over the blocks that stay (fwd_sm90_items.cuh), without a GPU.

    attention_order.py

For each set: what the busiest block has more than the average one, in steps of 128 keys and 1.2 steps an item for what is not
steps. `same`: every section of heads begins with its longest items; `turned`: every other one with its shortest; `drawn`: as
turned, each item to the block that is free first, which a counter in memory would give."""

import heapq

BLOCKS, ROWS, KEYS, ITEM = 132, 128, 128, 1.2
SECTION_BYTES = 32 << 20

# name: ([(prefix, rows) of each task], KV heads, query heads of each)
SETS = {
    "document of 4k, 32:8": ([(0, 4096)], 8, 4),
    "document of 16k, 32:8": ([(0, 16384)], 8, 4),
    "document of 16k, 28:4": ([(0, 16384)], 4, 7),
    "document of 32k, 32:8": ([(0, 32768)], 8, 4),
    "2 documents of 16k, 32:8": ([(0, 16384)] * 2, 8, 4),
    "2 documents of 16k, 64:8": ([(0, 16384)] * 2, 8, 8),
    "8 documents of 4k, 32:8": ([(0, 4096)] * 8, 8, 4),
    "64k and 16 of 1k, 32:8": ([(0, 65536)] + [(0, 1024)] * 16, 8, 4),
    "16 shards of 512 at 16k, 32:8": ([(16384, 512)] * 16, 8, 4),
}


def sections(tasks, heads, group, head_dim=128):
    """Steps of the items of each section, the longest first."""
    found = []
    for prefix, rows in sorted(tasks, key=lambda task: -sum(task)):
        fit = max(1, min(SECTION_BYTES // ((prefix + rows) * head_dim * 4), heads))
        tiles = (rows * group + ROWS - 1) // ROWS
        steps = []
        for tile in reversed(range(tiles)):
            last_packed = min((tile + 1) * ROWS, rows * group) - 1
            steps.append((prefix + last_packed // group) // KEYS + 1)
        for first in range(0, heads, fit):
            found.append([n for n in steps for _ in range(min(fit, heads - first))])
    return found


def turned(order):
    return [steps[::-1] if (len(order) - 1 - i) % 2 else steps for i, steps in enumerate(order)]


def walked(items):
    """Load of each block: an item of every round over the blocks, whose order turns round by round."""
    load = [0.0] * BLOCKS
    for i, steps in enumerate(items):
        turn, place = divmod(i, BLOCKS)
        load[BLOCKS - 1 - place if turn % 2 else place] += steps + ITEM
    return load


def drawn(items):
    load = [0.0] * BLOCKS
    for steps in items:
        heapq.heappush(load, heapq.heappop(load) + steps + ITEM)
    return load


def excess(load):
    return 100 * (max(load) / (sum(load) / BLOCKS) - 1)


def main():
    print("%-32s %7s %8s %8s %8s" % ("per cent", "items", "same", "turned", "drawn"))
    for name, (tasks, heads, group) in SETS.items():
        order = sections(tasks, heads, group)
        same, other = sum(order, []), sum(turned(order), [])
        print("%-32s %7d %8.1f %8.1f %8.1f" % (name, len(same), excess(walked(same)), excess(walked(other)), excess(drawn(other))))


if __name__ == "__main__":
    main()
