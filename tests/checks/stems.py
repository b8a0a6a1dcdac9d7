#!/usr/bin/python3
"""The shape of the tree: top-level entries, names of files, their length, and that no source is left out of the build.
"""

import os

import source_tree

TOP = {
    "CMakeLists.txt", "trainer", "attention_server", "comm", "kernels", "lora", "data", "tests", "launch", "README.md",
    "base", "docs", "cmake", "CMakePresets.json", "CONTRIBUTING.md", "LICENSE",
    "build", "runs",  # ignored by git
}  # fmt: skip
VAGUE = {"util", "utils", "common", "misc", "helper", "helpers"}
MAX_LINES = 600
NAMED = source_tree.SOURCE + (".py", ".sh")  # files whose stems count
FREE = {"__main__", "__init__"}  # names that Python gives


def check(root):
    findings = []
    for entry in sorted(os.listdir(root)):
        if entry not in TOP and not entry.startswith("."):
            findings.append(f"{entry}: not a top-level entry of this project")

    seen = {}
    for path in source_tree.files(root):
        stem, extension = os.path.splitext(os.path.basename(path))
        if stem in VAGUE or os.path.basename(os.path.dirname(path)) in VAGUE:
            findings.append(f"{path}: the name says nothing")
        script = extension == "" and path.split("/")[0] in ("launch", "tests")
        if extension in NAMED or script:
            length = source_tree.read(root, path).count("\n")
            if length > MAX_LINES:
                findings.append(f"{path}: {length} lines; a file has one purpose and at most {MAX_LINES}")
        if extension not in NAMED or stem in FREE:
            continue
        # One stem may be a header, a C file and a CUDA file of one folder's tree: kernels/cpu/gemm.c and
        # kernels/cuda/gemm.cu are two versions of one thing.
        for other in seen.get(stem, []):
            same_extension = os.path.splitext(other)[1] == extension
            same_folder = other.split("/")[0] == path.split("/")[0]
            if same_extension or not same_folder or not extension.startswith((".c", ".h")):
                findings.append(f"{path}: stem is also that of {other}")
        seen.setdefault(stem, []).append(path)

        top = path.split("/")[0]
        if top in source_tree.LAYERS and extension in (".c", ".cu"):
            build = f"{top}/CMakeLists.txt"
            listed = source_tree.read(root, build).split() if os.path.exists(os.path.join(root, build)) else []
            if path[len(top) + 1 :] not in [word.strip(")") for word in listed]:
                findings.append(f"{path}: not listed in {build}")
    return findings


LISTED = "cadre_library(base\n    SOURCES\n        a.c\n        config/b.c)\n"
CASES = [
    ({"base/CMakeLists.txt": LISTED, "base/a.c": "", "base/a.h": "", "base/config/b.c": ""}, None),
    ({"kernels/CMakeLists.txt": "cpu/g.c cuda/g.cu", "kernels/cpu/g.c": "", "kernels/cuda/g.cu": "", ".git/x.c": ""},
     None),
    ({"build/cpu/a.c": "", "base/x.h": "\n" * 600}, None),
    ({"src/a.h": ""}, "not a top-level entry"),
    ({"NOTES": ""}, "not a top-level entry"),
    ({"base/utils.h": ""}, "says nothing"),
    ({"tests/common/x.h": ""}, "says nothing"),
    ({"base/x.h": "\n" * 601}, "601 lines"),
    ({"tests/run": "\n" * 601}, "601 lines"),
    ({"base/a.h": "", "comm/a.h": ""}, "stem is also"),
    ({"base/a.h": "", "base/config/a.h": ""}, "stem is also"),
    ({"base/x.h": "", "tests/checks/x.py": ""}, "stem is also"),
    ({"base/CMakeLists.txt": LISTED, "base/a.c": "", "base/c.c": ""}, "base/c.c: not listed"),
]

if __name__ == "__main__":
    source_tree.run("stems", check, CASES)
