#!/usr/bin/python3
"""The order of the folders, by what each file includes.

base <- kernels, comm, data <- lora, attention_server <- trainer; every project header by its path from the project
root; a foreign library only in the folder that owns it; the address of a buffer (base/device/device_host.h) only in
base/device, kernels/ and the transports named here."""

import re

import source_tree

# Foreign headers and where they may be included. Tests may include them all.
FOREIGN = {
    "mpi.h": ("comm/",),
    "nccl.h": ("comm/",),
    "hdf5.h": ("data/",),
    "jansson.h": ("data/",),
    "yaml.h": ("base/config/", "base/version.c"),
    "cblas.h": ("kernels/cpu/",),
    "omp.h": ("kernels/cpu/",),
    "coin/": ("lora/",),
    "cuda": ("base/device/", "kernels/cuda/", "comm/"),
    "cublas": ("kernels/cuda/",),
    "cmocka.h": (),
}

# Who may look into a buffer. Each entry is a decision: such a file could touch bytes that a stream is still writing.
HOST_ACCESS = (
    "base/device/",
    "base/arena.c",  # guard zones between its pieces
    "kernels/",
    "comm/threads",  # transports, which move the bytes themselves
    "comm/mpi",
    "comm/nccl",
    "comm/copy_engine",
    "comm/reduce.c",  # sums in a fixed order, as work on a stream
)

INCLUDE = re.compile(r'\s*#\s*include\s*(["<])([^">]+)[">]')


def check(root):
    findings = []
    for path in source_tree.files(root):
        if not path.endswith(source_tree.SOURCE):
            continue
        folder = path.split("/")[0]
        product = folder in source_tree.LAYERS
        lines = source_tree.code_lines(source_tree.read(root, path), keep_strings=True)
        for number, line in enumerate(lines, 1):
            match = INCLUDE.match(line)
            if not match:
                continue
            place, (quote, name) = f"{path}:{number}", match.groups()
            target = name.split("/")[0]
            if quote == '"' and target not in source_tree.LAYERS and not (folder == "tests" and target == "tests"):
                findings.append(f'{place}: "{name}": write the path from the project root')
            if product and target in source_tree.LAYERS:
                if target != folder and target not in source_tree.LAYERS[folder]:
                    findings.append(f'{place}: {folder}/ may not include {target}/ ("{name}")')
            if name == "base/device/device_host.h" and folder != "tests" and not path.startswith(HOST_ACCESS):
                findings.append(f"{place}: only {', '.join(HOST_ACCESS)} may look into a buffer")
            if product and quote == "<":
                for header, owners in FOREIGN.items():
                    if name.startswith(header) and not path.startswith(owners or ("none",)):
                        findings.append(f"{place}: <{name}> belongs to {', '.join(owners) or 'tests/'}")
    return findings


CASES = [
    ({"base/a.c": '#include "base/a.h"\n#include <stdio.h>\n', "base/a.h": ""}, None),
    ({"trainer/t.c": '#include "lora/l.h"\n#include "base/a.h"\n'}, None),
    ({"tests/unit/base/t.c": '#include "tests/support/s.h"\n#include <cmocka.h>\n'}, None),
    ({"comm/threads.c": '#include "base/device/device_host.h"\n#include <mpi.h>\n'}, None),
    ({"base/a.c": '/*\n#include "comm/c.h"\n*/\n// #include "comm/c.h"\n'}, None),
    ({"base/a.c": '#include "comm/comm.h"\n'}, "base/ may not include comm/"),
    ({"kernels/k.c": '#include "data/d.h"\n'}, "kernels/ may not include data/"),
    ({"lora/l.c": '#include "attention_server/attention.h"\n'}, "lora/ may not include attention_server/"),
    ({"attention_server/s.c": '  #  include "trainer/t.h"\n'}, "may not include trainer/"),
    ({"trainer/t.c": '#include "tests/support/s.h"\n'}, "from the project root"),
    ({"base/a.c": '#include "a.h"\n'}, "from the project root"),
    ({"base/a.c": '#include "../comm/c.h"\n'}, "from the project root"),
    ({"lora/l.c": '#include "base/device/device_host.h"\n'}, "may look into a buffer"),
    ({"comm/group.c": '#include "base/device/device_host.h"\n'}, "may look into a buffer"),
    ({"lora/l.c": "#include <mpi.h>\n"}, "<mpi.h> belongs to comm/"),
    ({"trainer/t.c": "#include <cuda_runtime_api.h>\n"}, "<cuda_runtime_api.h> belongs to"),
    ({"base/a.c": "#include <cmocka.h>\n"}, "<cmocka.h> belongs to tests/"),
]

if __name__ == "__main__":
    source_tree.run("includes", check, CASES)
