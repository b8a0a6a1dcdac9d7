"""Faults in the form of the whole program: an id, the place, the exact cause, and the cure below.

The cures come from base/message.h, the one list of messages: in a checkout it is read where it stands, beside an
installed program there is a copy next to this file.
"""

import os
import re

SHOWN = 20  # as BASE_ERROR_LIST_SHOWN

_STRING = r'"(?:\\.|[^"\\])*"'
_ENTRY = re.compile(rf"X\(\s*([A-Z0-9]+)\s*,\s*(\d+)\s*,\s*(?:{_STRING}\s*)+,\s*((?:{_STRING}\s*)+)\)")


class Fault(Exception):
    """One fault. `place` is a file, or "file:line"; `line` orders the faults of a file; `status` is an exit code."""

    def __init__(self, id, place, text, line=0, status=3):
        super().__init__(text)
        self.id, self.place, self.text, self.line, self.status = id, place, text, line, status


def cures():
    """{id: cure} of every message of the program."""
    here = os.path.dirname(os.path.realpath(__file__))
    for path in (os.path.join(here, "message.h"), os.path.join(here, "..", "..", "base", "message.h")):
        if os.path.exists(path):
            with open(path, encoding="utf-8") as file:
                text = file.read().replace("\\\n", "\n")
            break
    else:
        return {}
    found = {}
    for area, number, cure in _ENTRY.findall(text):
        pieces = re.findall(_STRING, cure)
        found[f"{area}-{number}"] = "".join(re.sub(r"\\(.)", r"\1", piece[1:-1]) for piece in pieces)
    return found


def clean(text):
    """Without what a user's file could do to a terminal."""
    return "".join(c if c.isprintable() else "?" for c in text)


def show(faults, out):
    """The first SHOWN and a count; a cure stands once behind neighbours of one id."""
    known = cures()
    shown = faults[:SHOWN]
    for number, fault in enumerate(shown):
        print(f"cadre: error {fault.id}: {clean(fault.place)}: {clean(fault.text)}", file=out)
        if number + 1 == len(shown) or shown[number + 1].id != fault.id:
            print(f"    {known.get(fault.id, '')}", file=out)
    if len(faults) > SHOWN:
        print(f"cadre: {len(faults) - SHOWN} more errors, {len(faults)} in all", file=out)


def quote(text, room=60):
    """A piece of the user's text for a message, cut to `room` characters."""
    return '"' + clean(text if len(text) <= room else text[: room - 3] + "...") + '"'
