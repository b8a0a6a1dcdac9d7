#!/usr/bin/python3
"""docs/operations.md from the messages of base/message.h and the paragraphs of docs/operations.in.md.

    docs/generate_operations.py            writes docs/operations.md
    docs/generate_operations.py --check    fails when it is not what would be written

In operations.in.md a message has a heading "### ID" and its paragraph; here the message's text joins the heading and
its cure comes first. tests/checks/messages.py runs the same functions.
"""

import os
import re
import sys

HEADER = "base/message.h"
SOURCE = "docs/operations.in.md"
TARGET = "docs/operations.md"

STRING = r'"(?:\\.|[^"\\])*"'
ENTRY = re.compile(rf"X\(\s*([A-Z0-9]+)\s*,\s*(\d+)\s*,\s*((?:{STRING}\s*)+),\s*((?:{STRING}\s*)+)\)")
HEADING = re.compile(r"### ([A-Z0-9]+-\d+)")
NOTE = "<!-- Generated from base/message.h and docs/operations.in.md by docs/generate_operations.py. Do not edit. -->"


def literal(text):
    """The value of adjacent C string literals."""
    pieces = re.findall(STRING, text)
    return "".join(re.sub(r"\\(.)", r"\1", piece[1:-1]) for piece in pieces)


def messages(header):
    """{id: (text, cure)} in the order of the map."""
    lines = header.replace("\\\n", "\n")
    start = lines.index("#define BASE_MESSAGE_MAP(X)")
    body = lines[start : lines.index("typedef enum", start)]
    found = {}
    for area, number, text, cure in ENTRY.findall(body):
        found[f"{area}-{number}"] = (literal(text), literal(cure))
    return found


def generate(header, source):
    """Returns (text of operations.md, findings)."""
    known = messages(header)
    findings, seen, out = [], set(), []
    lines = source.rstrip("\n").split("\n")
    for number, line in enumerate(lines):
        match = HEADING.fullmatch(line)
        if not match:
            out.append(line)
            continue
        name = match[1]
        place = f"{SOURCE}:{number + 1}: {name}"
        if name not in known:
            findings.append(f"{place}: not in {HEADER}")
            continue
        if name in seen:
            findings.append(f"{place}: a second paragraph")
        seen.add(name)
        following = "\n".join(lines[number + 1 :])
        if not re.split(r"^##", following, maxsplit=1, flags=re.MULTILINE)[0].strip():
            findings.append(f"{place}: no paragraph")
        text, cure = known[name]
        out += [f"### {name}: {text}", "", f"*What to do:* {cure}."]
    for name in known:
        if name not in seen:
            findings.append(f"{HEADER}: {name}: no paragraph in {SOURCE}")
    return "\n".join([NOTE, ""] + out) + "\n", findings


def read(root, path):
    with open(os.path.join(root, path), encoding="utf-8") as file:
        return file.read()


def main(arguments):
    root = os.path.dirname(os.path.dirname(os.path.abspath(__file__)))
    if arguments not in ([], ["--check"]):
        print(__doc__)
        return 2
    text, findings = generate(read(root, HEADER), read(root, SOURCE))
    for finding in findings:
        print(finding)
    if findings:
        return 1
    if arguments == []:
        with open(os.path.join(root, TARGET), "w", encoding="utf-8") as file:
            file.write(text)
    elif not os.path.exists(os.path.join(root, TARGET)) or read(root, TARGET) != text:
        print(f"{TARGET}: stale; run docs/generate_operations.py")
        return 1
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
