#!/usr/bin/env python3
"""How the order of the sm_90a backward's blocks that own keys (bwd_sm90_items.cuh) suits its chains and L2, without a GPU.

    attention_l2.py [KV_HEADS GROUP ROWS [DOCUMENTS]]

Whole causal documents of ROWS tokens, for each number of heads in a section: `busy`, the share of time in which a processor does
not wait for its turn in a chain or for work; and the bytes that go between L2 and memory for each step of 128 keys and 64 packed rows,
of which q and d_o of the rows, and the sum of dq, 32 kB each (head dim 128), may be in L2. A step is a unit of time; a block that may
work does; L2 holds 40 MB and forgets what was used longest ago. `op`: the heads that key_section of bwd_sm90.cu takes, and blocks of the
second round in groups (drawn_before in bwd_sm90_items.cuh); the other lines are without groups. `until rung 9`: as many heads as have
128 MB of sums.

Without arguments: the lengths of docs/kernels/attention.md, rungs 9 and 10."""

import sys
from collections import OrderedDict

PROCESSORS, KEYS, ROWS, TILE_BYTES = 132, 128, 64, 32 << 10
CACHED_TILES = (40 << 20) // TILE_BYTES
BEFORE_BYTES, APART_BYTES = 128 << 20, 16 << 20  # of rung 9; half of SECTION_BYTES in task_list.cuh


def section_now(kv_heads, rows):
    least = -(-(PROCESSORS * 19 // 10) // -(-rows // KEYS))
    return -(-kv_heads // (kv_heads // max(1, min(least, kv_heads))))


def section_before(kv_heads, group, rows):
    return max(1, min(BEFORE_BYTES // (rows * group * 128 * 4), kv_heads))


def drawn_before(item, heads, group, key_tiles):
    """Items of a section that have been drawn when the block of `item` begins; drawn_before in bwd_sm90_items.cuh."""
    apart = -(-KEYS // (ROWS // group))
    late = PROCESSORS + APART_BYTES // (2 * TILE_BYTES) // apart
    together = heads * (1 if key_tiles < 64 else 3 if key_tiles >= 128 and apart > 8 else 2)
    if item < late or together == heads:
        return item + 1
    return min(late + ((item - late) // together + 1) * together, heads * key_tiles)


def items_of(documents, kv_heads, group, key_tiles, section, grouped):
    """(head, tile of keys, items drawn before the block begins) as the blocks draw them."""
    base = 0
    for document in range(documents):
        for first in range(0, kv_heads, section):
            heads = min(section, kv_heads - first)
            for item in range(heads * key_tiles):
                drawn = drawn_before(item, heads, group, key_tiles) if grouped else item + 1
                yield document * kv_heads + first + item % heads, item // heads, base + drawn
            base += heads * key_tiles


def walk(documents, kv_heads, group, rows, section, grouped):
    """(busy, bytes a step)"""
    tokens = ROWS // group
    row_tiles, key_tiles = -(-rows // tokens), -(-rows // KEYS)
    turns = [[0] * row_tiles for _ in range(documents * kv_heads)]
    items, drawn = items_of(documents, kv_heads, group, key_tiles, section, grouped), 0
    blocks = [None] * PROCESSORS
    cache, moved, steps, time = OrderedDict(), 0, 0, 0
    while True:
        done = []
        for i in range(PROCESSORS):
            if blocks[i] is None:
                item = next(items, None)
                if item is None:
                    continue
                blocks[i] = [*item, row_tiles - 1]
                drawn += 1
            head, tile, begins, row = blocks[i]
            if drawn < begins or turns[head][row] < tile:
                continue
            for operand in range(2):
                if (head, row, operand) in cache:
                    cache.move_to_end((head, row, operand))
                else:
                    cache[head, row, operand] = True
                    moved += 1
            while len(cache) > CACHED_TILES:
                moved += cache.popitem(last=False)[0][2]  # a sum is written back
            done.append((head, row))
            blocks[i][3] -= 1
            if blocks[i][3] < tile * KEYS // tokens:
                blocks[i] = None
        if not done and all(block is None for block in blocks):
            return steps / (time * PROCESSORS), moved * TILE_BYTES / steps
        for head, row in done:
            turns[head][row] += 1
        steps += len(done)
        time += 1


def show(kv_heads, group, rows, documents=1):
    now, before = section_now(kv_heads, rows), section_before(kv_heads, group, rows)
    print(f"{documents} of {rows}, {kv_heads * group}:{kv_heads}")
    ways = [(heads, False) for heads in sorted({1, 2, 4, kv_heads, now, before}) if heads <= kv_heads] + [(now, True)]
    for section, grouped in ways:
        busy, moved = walk(documents, kv_heads, group, rows, section, grouped)
        mark = ", op" if grouped else ", until rung 9" if section == before else ""
        print(f"  {section} heads: busy {busy:.3f}, {moved / 1024:5.1f} kB a step{mark}", flush=True)


def main(arguments):
    if arguments:
        show(*(int(x) for x in arguments))
        return 0
    for sizes in ((8, 4, 4096, 4), (8, 8, 4096, 2), (8, 4, 8192, 2), (8, 4, 10240), (8, 4, 12288), (8, 4, 16384), (8, 8, 16384), (4, 7, 16384), (8, 4, 32768), (8, 8, 32768)):
        show(*sizes)
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
