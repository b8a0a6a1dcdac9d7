#!/usr/bin/env python3
"""How the order of the sm_90a backward's blocks that own keys (bwd_sm90_items.cuh) suits its chains and L2, without a GPU.

    attention_l2.py [KV_HEADS GROUP ROWS [DOCUMENTS]]

Whole causal documents of ROWS tokens, for each number of heads in a section: `busy`, the share of time in which a processor does
not wait for its turn in a chain or for work; and the bytes that go between L2 and memory for each step of 128 keys and 64 packed rows,
of which q and d_o of the rows, and the sum of dq, 32 kB each (head dim 128), may be in L2. A step is a unit of time; a block that may
work does; L2 holds 40 MB and forgets what was used longest ago. `now`: what key_section of bwd_sm90.cu takes; `until rung 9`: as many
heads as have 128 MB of sums.

Without arguments: the lengths of docs/kernels/attention.md, rung 9."""

import sys
from collections import OrderedDict

PROCESSORS, KEYS, ROWS, TILE_BYTES = 132, 128, 64, 32 << 10
CACHED_TILES = (40 << 20) // TILE_BYTES
SECTION_BYTES = 128 << 20


def section_now(kv_heads, rows):
    least = -(-(PROCESSORS * 19 // 10) // -(-rows // KEYS))
    return -(-kv_heads // (kv_heads // max(1, min(least, kv_heads))))


def section_before(kv_heads, group, rows):
    return max(1, min(SECTION_BYTES // (rows * group * 128 * 4), kv_heads))


def items_of(documents, kv_heads, key_tiles, section):
    """(head, tile of keys) as the blocks draw them."""
    for document in range(documents):
        for first in range(0, kv_heads, section):
            heads = range(first, min(first + section, kv_heads))
            for tile in range(key_tiles):
                for head in heads:
                    yield document * kv_heads + head, tile


def walk(documents, kv_heads, group, rows, section):
    """(busy, bytes a step)"""
    tokens = ROWS // group
    row_tiles, key_tiles = -(-rows // tokens), -(-rows // KEYS)
    turns = [[0] * row_tiles for _ in range(documents * kv_heads)]
    items = items_of(documents, kv_heads, key_tiles, section)
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
            head, tile, row = blocks[i]
            if turns[head][row] < tile:
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
            blocks[i][2] -= 1
            if blocks[i][2] < tile * KEYS // tokens:
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
    for section in sorted({1, 2, 4, kv_heads, now, before}):
        if section <= kv_heads:
            busy, moved = walk(documents, kv_heads, group, rows, section)
            mark = (", now" if section == now else "") + (", until rung 9" if section == before else "")
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
