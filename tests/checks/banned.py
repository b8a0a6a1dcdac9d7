#!/usr/bin/python3
"""Functions that may not be called, or only in named places."""

import re

import source_tree

NOWHERE = {
    "atoi": "strtol with an end pointer",
    "atol": "strtol with an end pointer",
    "atoll": "strtoll with an end pointer",
    "atof": "strtod with an end pointer",
    "strcpy": "snprintf or memcpy",
    "strcat": "snprintf",
    "strncat": "snprintf",
    "sprintf": "snprintf",
    "vsprintf": "vsnprintf",
    "sscanf": "strtol, strtod",
    "gets": "fgets",
    "strtok": "strcspn, strspn",
}
PRINT_PLACES = ("trainer/cli/", "trainer/run/", "base/log.c", "tests/")
PRINT = re.compile(r"(?<![\w.>])(?:v?printf|puts|putchar|perror)\s*\(|\b(?:stdout|stderr|STDOUT_FILENO|STDERR_FILENO)\b")
MEMORY_PLACES = ("base/memory.c", "base/device/", "tests/")
MEMORY = re.compile(
    r"(?<![\w.>])(malloc|calloc|realloc|reallocarray|aligned_alloc|posix_memalign|memalign|valloc|strdup|strndup|"
    r"asprintf|vasprintf|getline|getdelim|free|cudaMalloc\w*|cudaHostAlloc|cudaFree\w*)\s*\("
)
# Receives are posted before sends, each for a known sender, tag and size (comm/mpi.h).
WILDCARD = re.compile(r"\b(MPI_ANY_SOURCE|MPI_ANY_TAG|MPI_I?M?[Pp]robe|MPI_Waitany|MPI_Wait(?:all|some)?)\b")
# What runs on CUDA's default stream, or waits for all of a device: streams do not wait for it, and nothing may wait there.
DEFAULT_STREAM = re.compile(
    r"(?<![\w.>])(cudaDeviceSynchronize|cudaCtxSynchronize|cudaStreamSynchronize|cudaMemcpy(?:2D|3D|Peer|ToSymbol|FromSymbol)?|"
    r"cudaMemset(?:2D|3D)?|cudaLaunchHostFunc)\s*\("
)
LAUNCH = re.compile(r"<<<(.*?)>>>", re.DOTALL)
ASYNC = re.compile(r"(?<![\w.>])(cuda(?:Memcpy|Memset)(?:2D)?Async)\s*\(")
ASYNC_ARGUMENTS = {"cudaMemcpyAsync": 5, "cudaMemcpy2DAsync": 8, "cudaMemsetAsync": 4, "cudaMemset2DAsync": 6}
NO_STREAM = ("0", "NULL", "nullptr", "cudaStreamLegacy", "cudaStreamPerThread")  # the default one
# Who trains does not learn on what: these folders get a device and ask kernels/ what it has (docs/design.md).
NO_DEVICE_PLACES = ("lora/", "attention_server/", "trainer/model/", "trainer/loop/")
DEVICE = re.compile(r"\b(BASE_DEVICE_(?:CPU|STRICT|CUDA)|base_stream_native|\w*cuda\w*)\b", re.IGNORECASE)
BANNED = re.compile(r"(?<![\w.>])(" + "|".join(NOWHERE) + r")\s*\(")


def arguments(text):
    """Of a call or launch, from behind its bracket to where that closes."""
    depth, begin, found = 0, 0, []
    for at, c in enumerate(text):
        if c in ")]}" and depth == 0:
            return found + [text[begin:at].strip()]
        depth += (c in "([{") - (c in ")]}")
        if c == "," and depth == 0:
            found.append(text[begin:at].strip())
            begin = at + 1
    return found + [text[begin:].strip()]


def check_launches(path, code):
    calls = [(m, arguments(m[1]), 4, "a launch") for m in LAUNCH.finditer(code)]
    calls += [(m, arguments(code[m.end() :]), ASYNC_ARGUMENTS[m[1]], m[1]) for m in ASYNC.finditer(code)]
    for match, found, wanted, what in calls:
        if len(found) != wanted or found[-1] in NO_STREAM:
            number = code.count("\n", 0, match.start()) + 1
            yield f"{path}:{number}: {what} without a stream, so on the default one, for which other streams wait"


def check(root):
    findings = []
    for path in source_tree.files(root):
        if not path.endswith(source_tree.SOURCE):
            continue
        lines = source_tree.code_lines(source_tree.read(root, path))
        if not path.startswith("tests/"):
            findings.extend(check_launches(path, "\n".join(lines)))
        for number, line in enumerate(lines, 1):
            place = f"{path}:{number}"
            for match in BANNED.finditer(line):
                findings.append(f"{place}: {match[1]}: use {NOWHERE[match[1]]}")
            if PRINT.search(line) and not path.startswith(PRINT_PLACES):
                findings.append(f"{place}: writes to the terminal; record the error (BASE_FAIL) or log it")
            match = WILDCARD.search(line)
            if match:
                findings.append(f"{place}: {match[1]}: messages are expected, and waits are the progress thread's looks")
            match = DEFAULT_STREAM.search(line)
            if match and not path.startswith("tests/"):
                findings.append(f"{place}: {match[1]}: work is given to a stream, and waits have a deadline (base/device)")
            match = DEVICE.search(line)
            if match and path.startswith(NO_DEVICE_PLACES):
                findings.append(f"{place}: {match[1]}: {', '.join(NO_DEVICE_PLACES)} do not know which device they run on")
            match = MEMORY.search(line)
            if match and not path.startswith(MEMORY_PLACES):
                findings.append(f"{place}: {match[1]}: memory comes from base/memory.h")
    return findings


CASES = [
    ({"base/a.c": 'x = snprintf(b, n, "printf(malloc(");\n/* gets( */ fprintf(file, "");\n'}, None),
    ({"base/a.c": "ops->free(x); o.malloc(1); my_free(x); base_memory_free(p); freeze(x);\n"}, None),
    ({"base/memory.c": "p = malloc(1); free(p);", "base/log.c": "fputs(s, stderr);"}, None),
    ({"trainer/cli/x.c": 'printf("");', "tests/x.c": "puts(s); free(p);"}, None),
    *[({"trainer/cli/a.c": f"f({name}(x));\n"}, f"{name}: use") for name in NOWHERE],
    ({"base/a.c": 'printf("x");\n'}, "writes to the terminal"),
    ({"comm/a.c": 'fprintf(stderr, "x");\n'}, "writes to the terminal"),
    ({"kernels/cuda/a.cu": 'printf("x");\n'}, "writes to the terminal"),
    ({"comm/a.c": "MPI_Irecv(p, n, MPI_BYTE, peer, tag, comm, &r); MPI_Testsome(n, r, &k, i, s);\n"}, None),
    ({"comm/a.c": "MPI_Irecv(p, n, MPI_BYTE, MPI_ANY_SOURCE, tag, comm, &r);\n"}, "MPI_ANY_SOURCE: messages are expected"),
    ({"comm/a.c": "MPI_Iprobe(peer, tag, comm, &is, &st);\n"}, "MPI_Iprobe: messages are expected"),
    ({"comm/a.c": "MPI_Waitall(n, r, s);\n"}, "MPI_Waitall: messages are expected"),
    ({"lora/a.c": "p = malloc(4);\n"}, "malloc: memory comes from"),
    ({"data/a.h": "free (p);\n"}, "free: memory comes from"),
    ({"comm/a.c": "s = strdup(t);\n"}, "strdup: memory comes from"),
    ({"kernels/cuda/a.cu": "cudaMallocAsync(&p, n, s);\n"}, "cudaMallocAsync: memory comes from"),
    ({"kernels/cuda/a.cu": "k<<<f(a, b), 256, 0,\n    s>>>(p); cudaMemcpyAsync(a, b(1, 2), n, k, s); cudaMemset2DAsync(a, p, 0, w, h, s);\n"}, None),
    ({"kernels/cuda/a.cu": "\nk<<<blocks,\n 256>>>(p);\n"}, "a.cu:2: a launch without a stream"),
    ({"kernels/cuda/a.cu": "k<<<blocks, 256, 0, nullptr>>>(p);\n"}, "a.cu:1: a launch without a stream"),
    ({"base/device/a.c": "e = cudaMemcpyAsync(a, b, n, k);\n"}, "a.c:1: cudaMemcpyAsync without a stream"),
    ({"base/device/a.c": "e = cudaMemsetAsync(a, f(0, 1), n, 0);\n"}, "a.c:1: cudaMemsetAsync without a stream"),
    ({"kernels/cuda/a.cu": "cudaMemcpy(a, b, n, k);\n"}, "cudaMemcpy: work is given to a stream"),
    ({"base/device/a.c": "e = cudaDeviceSynchronize();\n"}, "cudaDeviceSynchronize: work is given"),
    ({"tests/gpu/a.cu": "k<<<1, 1>>>(); cudaDeviceSynchronize();\n"}, None),
    ({"lora/a.c": "/* as cuda does */ st = kern_gemm_run(s, &a); /* BASE_DEVICE_CUDA */\n"}, None),
    ({"trainer/run/a.c": "if (kind == BASE_DEVICE_CUDA) return 1;\n"}, None),
    ({"trainer/loop/a.c": "if (kind == BASE_DEVICE_CUDA) return 1;\n"}, "BASE_DEVICE_CUDA: lora/"),
    ({"attention_server/a.c": "kern_cuda_gemm(s, &a);\n"}, "kern_cuda_gemm: lora/"),
    ({"trainer/cli/a.c": '/* text\n */ char c = \'"\'; strcpy(a, b); char d = \'"\';\n'}, "a.c:2: strcpy"),
]

if __name__ == "__main__":
    source_tree.run("banned", check, CASES)
