#!/usr/bin/python3
"""What Markdown points at is there: relative links of every page, and each folder of docs/measurements in its list."""

import os
import posixpath
import re

import source_tree

LINK = re.compile(r"\]\(([^)\s#]+)(?:#[^)]*)?\)")
MEASUREMENTS = "docs/measurements"


def check(root):
    files = source_tree.files(root)
    there = {""} | set(files)
    for path in files:
        while path := posixpath.dirname(path):
            there.add(path)
    findings, linked = [], set()
    for path in files:
        if not path.endswith(".md"):
            continue
        for number, line in enumerate(source_tree.read(root, path).split("\n"), 1):
            for match in LINK.finditer(re.sub(r"`[^`]*`", "", line)):
                target = match[1]
                if re.match(r"[a-z]+:", target):
                    continue
                place = posixpath.normpath(posixpath.join(posixpath.dirname(path), target))
                if place.rstrip("/") not in there:
                    findings.append(f"{path}:{number}: {target} is not there")
                if path == f"{MEASUREMENTS}/README.md":
                    linked.add(place)
    folders = {"/".join(p.split("/")[:3]) for p in files if p.startswith(MEASUREMENTS + "/") and p.count("/") > 2}
    findings += [f"{MEASUREMENTS}/README.md: {os.path.basename(f)} is not in its list" for f in sorted(folders - linked)]
    return findings


CASES = [
    ({"README.md": "[a](docs/a.md) [b](docs/) [c](https://x.org/y) [d](docs/a.md#part) `[e](none)`\n", "docs/a.md": "[up](../README.md)"}, None),
    ({"README.md": "[a](docs/b.md)\n", "docs/a.md": ""}, "README.md:1: docs/b.md is not there"),
    ({"docs/a.md": "\n[a](README.md)\n", "README.md": ""}, "docs/a.md:2: README.md is not there"),
    ({"docs/measurements/README.md": "[1](2026-a)", "docs/measurements/2026-a/README.md": ""}, None),
    ({"docs/measurements/README.md": "", "docs/measurements/2026-a/x.txt": ""}, "2026-a is not in its list"),
]

if __name__ == "__main__":
    source_tree.run("doc_links", check, CASES)
