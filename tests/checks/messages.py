#!/usr/bin/python3
"""Every message of base/message.h has its paragraph in docs/operations.md, that page is up to date, and every message
that the program can give has a test that provokes it: a file below tests/ names it by its id, such as CONF-03.

A message that no source gives yet needs no test yet; the check prints which ones these are.
"""

import os
import sys

import source_tree

sys.dont_write_bytecode = True
sys.path.insert(0, os.path.join(os.path.dirname(os.path.abspath(__file__)), "..", "..", "docs"))
import generate_operations  # noqa: E402


def given(root, names):
    """The ids that product sources use: as BASE_MSG_AREA_NN in C, as "AREA-NN" in the Python of `cadre prepare`."""
    found = set()
    for path in source_tree.files(root):
        if path.split("/")[0] in source_tree.LAYERS and path.endswith(".py"):
            text = source_tree.read(root, path)
            found |= {name for name in names if f'"{name}"' in text}
        if path.split("/")[0] not in source_tree.LAYERS or not path.endswith(source_tree.SOURCE):
            continue
        if path == generate_operations.HEADER:
            continue
        code = "\n".join(source_tree.code_lines(source_tree.read(root, path)))
        found |= {name for name in names if "BASE_MSG_" + name.replace("-", "_") in code}
    return found


def tested(root, names):
    found = set()
    for path in source_tree.files(root):
        if not path.startswith("tests/") or path.startswith("tests/checks/"):
            continue
        try:
            text = source_tree.read(root, path)
        except UnicodeDecodeError:  # a binary fixture
            continue
        found |= {name for name in names if name in text}
    return found


def check(root):
    def read(path):
        return source_tree.read(root, path) if os.path.exists(os.path.join(root, path)) else ""

    names = generate_operations.messages(read(generate_operations.HEADER))
    text, findings = generate_operations.generate(
        read(generate_operations.HEADER), read(generate_operations.SOURCE)
    )
    if not names:
        findings.append(f"{generate_operations.HEADER}: no message found")
    if not findings and read(generate_operations.TARGET) != text:
        findings.append(f"{generate_operations.TARGET}: stale; run docs/generate_operations.py")
    for name in sorted(given(root, names) - tested(root, names)):
        findings.append(f"{generate_operations.HEADER}: {name}: no test below tests/ names it")
    return findings


MAP = """#define BASE_MESSAGE_MAP(X) \\
    X(INT, 01, "fault", "say \\"so\\"") \\
    X(CONF, 02, "not YAML", \\
      "quote " "it")

typedef enum"""
PARAGRAPHS = "# Top\n\n### INT-01\n\nText.\n\n### CONF-02\n\nMore.\n"
PAGE = (
    generate_operations.NOTE
    + '\n\n# Top\n\n### INT-01: fault\n\n*What to do:* say "so".\n\nText.\n\n'
    + "### CONF-02: not YAML\n\n*What to do:* quote it.\n\nMore.\n"
)


def tree(**changed):
    files = {
        "base/message.h": MAP,
        "docs/operations.in.md": PARAGRAPHS,
        "docs/operations.md": PAGE,
        "base/a.c": "BASE_FAIL(ctx, st, BASE_MSG_INT_01);\n",
        "tests/unit/test_a.c": 'expect("INT-01");\n',
    }
    files.update({path.replace("__", "/").replace("_dot_", "."): text for path, text in changed.items()})
    return files


CASES = [
    (tree(), None),
    (tree(base__a_dot_c="/* BASE_MSG_CONF_02 is for others */"), None),
    (tree(base__a_dot_c="BASE_MSG_CONF_02"), "CONF-02: no test"),
    (tree(data__a_dot_py='fail("CONF-02")'), "CONF-02: no test"),
    (tree(docs__a_dot_py='fail("CONF-02")'), None),
    (tree(tests__unit__test_a_dot_c="none"), "INT-01: no test"),
    (tree(tests__unit__test_a_dot_c="", tests__checks__x_dot_py="# INT-01"), "INT-01: no test"),
    (tree(**{"docs/operations.md": PAGE + "\n"}), "stale"),
    (tree(**{"docs/operations.md": ""}), "stale"),
    (tree(**{"docs/operations.in.md": "### INT-01\n\nText.\n"}), "CONF-02: no paragraph in"),
    (tree(**{"docs/operations.in.md": PARAGRAPHS.replace("More.", "")}), "CONF-02: no paragraph"),
    (tree(**{"docs/operations.in.md": PARAGRAPHS.replace("Text.", "\n## x\n")}), "INT-01: no paragraph"),
    (tree(**{"docs/operations.in.md": PARAGRAPHS + "\n### INT-01\n\nAgain.\n"}), "second paragraph"),
    (tree(**{"docs/operations.in.md": PARAGRAPHS + "\n### X-09\n\nAgain.\n"}), "X-09: not in"),
    (tree(**{"base/message.h": "#define BASE_MESSAGE_MAP(X)\ntypedef enum"}), "no message found"),
]

if __name__ == "__main__":
    if len(sys.argv) == 2 and os.path.isdir(sys.argv[1]):
        ids = generate_operations.messages(source_tree.read(sys.argv[1], generate_operations.HEADER))
        unused = sorted(set(ids) - given(sys.argv[1], ids))
        if unused:
            print("messages: given by no source yet:", " ".join(unused))
    source_tree.run("messages", check, CASES)
