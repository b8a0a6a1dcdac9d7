"""Documents as the trainer will see them: supervised tokens stand between {+ and +}."""

import h5py
import numpy


def show(path, count, vocabulary, out):
    with h5py.File(path, "r", locking=False) as file:
        offsets, lines = file["offsets"][: count + 1], file["line"][:count]
        for number, line in enumerate(lines):
            begin, end = int(offsets[number]), int(offsets[number + 1])
            ids, mask = file["tokens"][begin:end], file["loss_mask"][begin:end]
            print(f"document {number} (line {line}): {len(ids)} tokens, {int(mask.sum())} supervised", file=out)
            print(marked(ids, mask, vocabulary), file=out)


def marked(ids, mask, vocabulary):
    """The text of the tokens, each run of supervised ones marked."""
    borders = [0, *(numpy.flatnonzero(numpy.diff(mask)) + 1).tolist(), len(ids)]
    pieces = []
    for begin, end in zip(borders, borders[1:]):
        text = vocabulary.decode(ids[begin:end].tolist())
        pieces.append("{+" + text + "+}" if mask[begin] else text)
    # A document may hold what a terminal would obey.
    return "".join(c if c.isprintable() or c in "\n\t" else f"\\x{ord(c):02x}" for c in "".join(pieces))
