#!/usr/bin/env python3
"""Counts what the loops of the wgmma kernels of attention consist of, in their machine code.

    sass.py [--table] CUOBJDUMP OBJECT...
    sass.py --self-test

A change of source or compiler that doubles a loop, moves a product out of it or spills shows here and not first on a GPU. For
each kernel the products (HGMMA) and exponentials (MUFU.EX2) of each loop that has products, outermost first, and of what lies
outside of loops; how many exponentials are given while products of the warpgroup's own are under way, which the compiler may undo by moving a
wait (WARPGROUP.DEPBAR) up; local memory must not be touched. --table prints what was found and judges nothing.

Loops are those of the control flow graph (a back edge goes to a block that dominates it): the compiler puts waiting loops behind
the code and jumps back from there, which is no loop round what lies between. Each instruction counts for its innermost loop."""

import re
import subprocess
import sys

# kernel, head dim: [(products, exponentials, of these at least under products) of each loop with products, outermost first],
# products and exponentials outside of loops.
#
# A product of the tables multiplies 16 deep: D / 16 for scores and dp, keys or rows / 16 for the others. A thread has 64
# (tile of 64 x 128: forward, dq; 128 x 64 and 64 x 128: head dim 64 of the backward) or 32 scores (64 x 64), and the forward
# two factors. The walk over items is a loop of its own where a block has several.
EXPECTED = {
    # item: first scores and last values; step: scores, values. Head dim 128: first scores of a whole and of half a tile, last step of half
    # a tile, last values of half and of a whole.
    ("fwd_sm90", 128): ([(8 + 8 + (8 + 8) + 4 + 8, 66 + 34 + 34, 34), (8 + 8, 66, 64)], (0, 0)),
    ("fwd_sm90", 64): ([(4 + 8, 66, 0), (4 + 8, 66, 64)], (0, 0)),
    # step: scores, dp, dq
    ("dq_sm90", 128): ([(0, 0, 0), (8 + 8 + 8, 64, 0)], (0, 0)),
    ("dq_sm90", 64): ([(0, 0, 0), (4 + 4 + 8, 64, 0)], (0, 0)),
    # tile of rows: scores, dp, dv, dk
    ("dkv_sm90", 128): ([(8 + 8 + 4 + 4, 32, 32)], (0, 0)),
    ("dkv_sm90", 64): ([(4 + 4 + 8 + 8, 64, 0)], (0, 0)),
    # tile of rows: scores, dp, dv, dq of the tile before, dk; behind the loop dq of the last tile
    ("dqkv_sm90", 128): ([(8 + 8 + 4 + 8 + 4, 32, 32)], (8, 0)),
    ("dqkv_sm90", 64): ([(4 + 4 + 8 + 8 + 8, 64, 0)], (8, 0)),
}
# Variants that are tried (tests/gpu/attention_try.h) are held to the figures of what they vary, wherever they are found.

INSTRUCTION = re.compile(r"^\s*/\*([0-9a-f]{4,})\*/\s+(.*?)\s*;\s*/\*")
BRANCH = re.compile(r"\bBRA(?:\.\S+)?\s+(?:!?U?P\w+,\s*|UR\d+,\s*)*(0x[0-9a-f]+)$")
ALWAYS = re.compile(r"^(BRA|EXIT|RET)\b(?!.*\bP\d)")


def functions_of(text):
    """{mangled name: [(address, instruction)]}"""
    functions, code = {}, None
    for line in text.splitlines():
        head = re.match(r"\s*Function : (\S+)", line)
        if head:
            code = functions.setdefault(head.group(1), [])
        elif code is not None:
            found = INSTRUCTION.match(line)
            if found:
                code.append((int(found.group(1), 16), found.group(2)))
    return functions


def blocks_of(code):
    """[(first, end, successors)] in indices of code and of blocks."""
    at = {address: i for i, (address, _) in enumerate(code)}
    targets = {}
    leaders = {0}
    for i, (address, text) in enumerate(code):
        branch = BRANCH.search(text)
        if branch:
            targets[i] = at[int(branch.group(1), 16)]
            leaders.add(targets[i])
        if branch or re.search(r"\b(EXIT|RET)\b", text):
            leaders.add(i + 1)
    starts = sorted(x for x in leaders if x < len(code))
    number = {start: b for b, start in enumerate(starts)}
    blocks = []
    for b, start in enumerate(starts):
        end = starts[b + 1] if b + 1 < len(starts) else len(code)
        last = end - 1
        after = [number[targets[last]]] if last in targets else []
        if not ALWAYS.match(code[last][1]) and b + 1 < len(starts):
            after.append(b + 1)
        blocks.append((start, end, after))
    return blocks


def dominators_of(blocks):
    """For each block the set of those that every way to it leads through; None: no way leads there."""
    before = [[] for _ in blocks]
    for b, (_, _, after) in enumerate(blocks):
        for s in after:
            before[s].append(b)
    dominators = [None] * len(blocks)
    dominators[0] = {0}
    changed = True
    while changed:
        changed = False
        for b in range(1, len(blocks)):
            known = [dominators[p] for p in before[b] if dominators[p] is not None]
            if known:
                new = set.intersection(*known) | {b}
                if new != dominators[b]:
                    dominators[b], changed = new, True
    return dominators, before


def loops_of(blocks):
    """[set of blocks], the largest first."""
    dominators, before = dominators_of(blocks)
    loops = {}
    for b, (_, _, after) in enumerate(blocks):
        for head in after:
            if dominators[b] is None or head not in dominators[b]:
                continue
            body, todo = loops.setdefault(head, {head}), [b]
            while todo:
                x = todo.pop()
                if x not in body:
                    body.add(x)
                    todo.extend(before[x])
    return sorted(loops.values(), key=len, reverse=True)


def count(code):
    """([[products, exponentials, of these under products, instructions] of each loop with or round products], the same outside,
    local accesses)"""
    blocks = blocks_of(code)
    loops = loops_of(blocks)
    found = [[0, 0, 0, 0] for _ in loops]
    outside = [0, 0, 0, 0]
    under_way = False  # products, in the order of the code
    for b, (start, end, _) in enumerate(blocks):
        inner = [i for i, body in enumerate(loops) if b in body]
        to = found[inner[-1]] if inner else outside
        for _, text in code[start:end]:
            if "HGMMA" in text:
                under_way = True
            elif re.search(r"WARPGROUP\.DEPBAR\.LE gsb0, 0x0", text):
                under_way = False
            to[0] += "HGMMA" in text
            to[1] += "MUFU.EX2" in text
            to[2] += under_way and "MUFU.EX2" in text
            to[3] += 1
    with_products = [
        i for i, body in enumerate(loops) if found[i][0] > 0 or any(found[j][0] > 0 and loops[j] < body for j in range(len(loops)))
    ]
    local = sum(bool(re.search(r"\b(LDL|STL)\b", text)) for _, text in code)
    return [found[i] for i in with_products], outside, local


def kernel_of(mangled):
    found = re.search(r"\d((?:fwd|dq|dkv|dqkv)_sm90)(?:_try)?ILi(\d+)E", mangled)
    if not found:
        return None
    return found.group(1), int(found.group(2))


def judge(kernel, counted, expected):
    """What is wrong, in words."""
    loops, outside, local = counted
    want_loops, want_outside = expected
    faults = []
    have, want = [tuple(loop[:2]) for loop in loops], [loop[:2] for loop in want_loops]
    if have != want:
        faults.append(f"products and exponentials of loops {have}, expected {want}")
    elif any(loop[2] < least for loop, (_, _, least) in zip(loops, want_loops)):
        under = [loop[2] for loop in loops]
        faults.append(f"exponentials under products {under}, expected at least {[loop[2] for loop in want_loops]}")
    if tuple(outside[:2]) != want_outside:
        faults.append(f"outside of loops {tuple(outside[:2])}, expected {want_outside}")
    if local:
        faults.append(f"{local} accesses to local memory")
    return [f"{kernel[0]}<{kernel[1]}>: {fault}" for fault in faults]


def run(cuobjdump, objects, table):
    seen, faults = set(), []
    for path in objects:
        text = subprocess.run([cuobjdump, "-sass", path], check=True, capture_output=True, text=True).stdout
        for mangled, code in functions_of(text).items():
            kernel = kernel_of(mangled)
            if kernel is None:
                continue
            seen.add(kernel)
            counted = count(code)
            if table:
                loops = ", ".join("{} HGMMA {} EX2, {} under products, {} instructions".format(*x) for x in counted[0])
                print("{}<{}>: loops: {}; outside: {} HGMMA {} EX2 {}".format(*kernel, loops, *counted[1]))
            elif kernel not in EXPECTED:
                faults.append(f"{kernel[0]}<{kernel[1]}>: not in the table of this script")
            else:
                faults += judge(kernel, counted, EXPECTED[kernel])
    if not table:
        faults += [f"{name}<{dim}>: not found in the objects" for name, dim in EXPECTED if (name, dim) not in seen]
    for fault in faults:
        print(f"sass.py: {fault}", file=sys.stderr)
    return 1 if faults else 0


def self_test():
    def listing(*lines):
        code = "\n".join(f"        /*{16 * i:04x}*/   {text} ;   /* 0x0 */" for i, text in enumerate(lines))
        return f"\t\tFunction : _ZN1a9fwd_sm90ILi64EEEv\n{code}\n"

    step = ["HGMMA.64x64x16.F32.BF16 R1, gdesc[UR1], R1", "MUFU.EX2 R1, R2"]
    plain = listing("MOV R1, R2", *step, "@!P0 BRA 0x10", *step, "EXIT", "BRA 0x70")
    # a waiting loop behind the code: 0x60, 0x70, back to 0x20
    behind = listing("MOV R1, R2", "@!P1 BRA 0x60", *step, "@P0 BRA 0x10", "EXIT", "NOP", "@!P1 BRA 0x60", "BRA 0x20")
    # one exponential under the product, one behind the wait that ends it
    wait = "WARPGROUP.DEPBAR.LE gsb0, "
    waited = listing("NOP", step[0], wait + "0x1", step[1], wait + "0x0", step[1], "@P0 BRA 0x10", "EXIT")
    nested = listing("NOP", *step, "NOP", *step, "@P0 BRA 0x40", "@P1 BRA 0x10", "STL [R1], R2", "EXIT")
    cases = [
        (plain, [[1, 1, 1, 3]], [1, 1], 0),
        (behind, [[1, 1, 1, 5]], [0, 0], 0),
        (nested, [[1, 1, 1, 4], [1, 1, 1, 3]], [0, 0], 1),
        (waited, [[1, 2, 1, 6]], [0, 0], 0),
    ]
    for text, loops, outside, local in cases:
        ((mangled, code),) = functions_of(text).items()
        assert kernel_of(mangled) == ("fwd_sm90", 64)
        got = count(code)
        assert got[0] == loops and got[1][:2] == outside and got[2] == local, (got, loops, outside, local)
    kernel = ("fwd_sm90", 64)
    right = ([[12, 66, 0, 900], [12, 66, 66, 800]], [0, 0, 0, 50], 0)
    assert judge(kernel, right, EXPECTED[kernel]) == []
    assert "loops" in judge(kernel, ([[12, 66, 0, 900], [24, 132, 0, 1600]], [0, 0, 0, 50], 0), EXPECTED[kernel])[0]
    assert "outside" in judge(kernel, (right[0], [4, 0, 0, 50], 0), EXPECTED[kernel])[0]
    assert "under products" in judge(kernel, ([[12, 66, 0, 900], [12, 66, 2, 800]], *right[1:]), EXPECTED[kernel])[0]
    assert "local memory" in judge(kernel, (*right[:2], 3), EXPECTED[kernel])[0]
    assert kernel_of("_ZN1a12fwd_mmaILi64EEEv") is None
    assert kernel_of("_ZN1a12fwd_sm90_tryILi64EEEv") == ("fwd_sm90", 64)
    assert kernel_of("_ZN1a13fwd_sm90_tryILi128EEEv") == ("fwd_sm90", 128)
    print("sass.py: self-test passed")
    return 0


def main(arguments):
    if arguments == ["--self-test"]:
        return self_test()
    table = arguments[:1] == ["--table"]
    arguments = arguments[table:]
    if len(arguments) < 2:
        print(__doc__, file=sys.stderr)
        return 2
    return run(arguments[0], arguments[1:], table)


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
