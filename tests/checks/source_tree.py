"""What the checks of the source tree share: walking it, reading C without comments and strings, and the frame of a
check with its self-test. Standard library only."""

import os
import re
import sys
import tempfile

SOURCE = (".c", ".h", ".cu", ".cuh")

# Order of the folders: each may include itself and what stands beside it.
LAYERS = {
    "base": (),
    "kernels": ("base",),
    "comm": ("base",),
    "data": ("base",),
    "lora": ("base", "kernels", "comm", "data"),
    "attention_server": ("base", "kernels", "comm", "data"),
    "trainer": ("base", "kernels", "comm", "data", "lora", "attention_server"),
}


def files(root):
    """Paths of all files relative to root, sorted, without what the build leaves and without dot entries."""
    found = []
    for folder, folders, names in os.walk(root):
        here = os.path.relpath(folder, root)
        folders[:] = sorted(f for f in folders if not f.startswith(".") and f != "__pycache__")
        if here == ".":
            folders[:] = [f for f in folders if f not in ("build", "runs")]
            here = ""
        found += [os.path.join(here, n) for n in sorted(names) if not n.startswith(".")]
    return found


def read(root, path):
    with open(os.path.join(root, path), encoding="utf-8") as file:
        return file.read()


_TOKEN = re.compile(r'//[^\n]*|/\*.*?\*/|"(?:\\.|[^"\\\n])*"|\'(?:\\.|[^\'\\\n])*\'', re.DOTALL)


def code_lines(text, keep_strings=False):
    """Lines of C with comments (and the contents of literals) blanked; line numbers stay."""

    def blank(match):
        token = match.group(0)
        if token[0] in "\"'":
            return token if keep_strings else token[0] + token[-1]
        return "\n" * token.count("\n") or " "

    return _TOKEN.sub(blank, text).split("\n")


def run(name, check, cases):
    """Frame of a check. `check(root)` returns findings as text. `cases` is a list of (files, expected): a tree as
    {path: text} and a word that some finding must hold, or None for a tree that must pass."""
    if len(sys.argv) == 2 and sys.argv[1] == "--self-test":
        for tree, expected in cases:
            with tempfile.TemporaryDirectory() as root:
                for path, text in tree.items():
                    os.makedirs(os.path.dirname(os.path.join(root, path)) or root, exist_ok=True)
                    with open(os.path.join(root, path), "w", encoding="utf-8") as file:
                        file.write(text)
                findings = check(root)
            ok = not findings if expected is None else any(expected in f for f in findings)
            if not ok:
                print(f"{name}: self-test: tree {sorted(tree)}: wanted {expected!r}, found {findings}")
                sys.exit(1)
        print(f"{name}: self-test: {len(cases)} trees judged rightly")
        return
    if len(sys.argv) != 2:
        print(f"usage: {sys.argv[0]} ROOT | --self-test")
        sys.exit(2)
    findings = check(sys.argv[1])
    for finding in findings:
        print(finding)
    if findings:
        print(f"{name}: {len(findings)} findings")
        sys.exit(1)
    print(f"{name}: nothing found")
