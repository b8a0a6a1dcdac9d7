#!/usr/bin/env python3
"""The peers of `cadre bench attention --peer`: cuDNN and FlashAttention-2 on the cases that the bench asks for.

    attention_peer.py [--also DIR]... [--no-search] [--cpu]

Reads one case a line (JSON; trainer/bench/bench_attention_peer.h has the form), times it, and answers with a line. Peers:

    cudnn VERSION dense       torch's SDPA on its cuDNN backend: equal whole documents, no window
    cudnn VERSION ragged      cudnn-frontend, packed rows and ragged offsets: whole documents, prefixes, windows. Needs the package
                              nvidia-cudnn-frontend (tried: 1.18.0, a wheel of 2 MB without further needs)
    flash-attention 2         the kernels in torch, dense through SDPA, else with cumulative lengths

A cuDNN of another version than torch's own is asked as well: one in a folder --also DIR that holds libcudnn.so.9, and those found
where a system keeps them (not with --no-search). It runs in a process of its own, which this one passes each case on to. torch
refuses a cuDNN that is older than the one it was compiled against, unless PYTORCH_SKIP_CUDNN_COMPATIBILITY_CHECK is set, as it is
there: what such a cuDNN cannot do it then says case by case.

Random normal values, bf16; copies rotate when a case would stay in the cache; a time is that of so many calls that they take some
milliseconds, between two events, divided by their number. The backward is alone: its forward's graph is kept. --cpu: torch's own
attention on the CPU in fp32, to try the protocol."""

import argparse
import gc
import glob
import json
import math
import os
import subprocess
import sys
import time

import torch
import torch.nn.functional as F
from torch.nn.attention import SDPBackend, sdpa_kernel

ROTATE_BYTES, MAX_COPIES, TIME_MS, MAX_CALLS = 400 << 20, 64, 4.0, 256
SYSTEM_CUDNN = ["/usr/lib/x86_64-linux-gnu/libcudnn.so.9", "/usr/local/cuda*/lib64/libcudnn.so.9"]


class Unfit(Exception):
    """A peer that cannot do a case, and why."""


class Case:
    def __init__(self, asked, device):
        self.device = device
        self.dtype = torch.float32 if device == "cpu" else torch.bfloat16
        self.kv_heads, self.group, self.dim = asked["kv_heads"], asked["group"], asked["head_dim"]
        self.q_heads = self.kv_heads * self.group
        self.window = asked["window"]
        self.tasks = asked["tasks"]  # document, q0, q1, h0, h1
        self.scale = 1 / math.sqrt(self.dim)
        self.all_heads = all(h0 == 0 and h1 == self.kv_heads for _, _, _, h0, h1 in self.tasks)
        lengths = {q1 - q0 for _, q0, q1, _, _ in self.tasks}
        self.equal = self.all_heads and len(lengths) == 1 and all(q0 == 0 for _, q0, _, _, _ in self.tasks)
        self.q_lengths = [q1 - q0 for _, q0, q1, _, _ in self.tasks]
        self.kv_lengths = [q1 for _, _, q1, _, _ in self.tasks]

    def copies(self, rows, keys):
        size = 2 * self.dim * (4 * rows * self.q_heads + 4 * keys * self.kv_heads)
        return 1 if self.device == "cpu" else min(ROTATE_BYTES // size + 1, MAX_COPIES)

    def normal(self, *shape):
        return torch.randn(*shape, device=self.device, dtype=self.dtype)

    def ragged(self):
        """Copies of (q, k, v, d_o), rows of all tasks behind each other: (rows, heads, lanes)."""
        if not self.all_heads:
            raise Unfit("tasks of some of the heads")
        rows, keys = sum(self.q_lengths), sum(self.kv_lengths)
        return [
            (
                self.normal(rows, self.q_heads, self.dim),
                self.normal(keys, self.kv_heads, self.dim),
                self.normal(keys, self.kv_heads, self.dim),
                self.normal(rows, self.q_heads, self.dim),
            )
            for _ in range(self.copies(rows, keys))
        ]


# ==== the peers: each gives forward(i) and backward(i) of copy i, and the number of copies


def through_sdpa(case, backend):
    if not case.equal or case.window:
        raise Unfit("torch's SDPA knows equal whole documents without a window")
    batch, rows = len(case.tasks), case.q_lengths[0]

    def tensor(heads, grad):
        return case.normal(batch, heads, rows, case.dim).requires_grad_(grad)

    copies = case.copies(batch * rows, batch * rows)
    data = [(tensor(case.q_heads, True), tensor(case.kv_heads, True), tensor(case.kv_heads, True)) for _ in range(copies)]
    d_o = [tensor(case.q_heads, False) for _ in range(copies)]

    def attend(i):
        with sdpa_kernel(backend):
            return F.scaled_dot_product_attention(*data[i], is_causal=True, enable_gqa=case.group > 1)

    out = [attend(i) for i in range(copies)]

    def forward(i):
        with torch.no_grad():
            attend(i)

    return forward, lambda i: torch.autograd.grad(out[i], data[i], d_o[i], retain_graph=True), copies


def cudnn_dense(case):
    return through_sdpa(case, SDPBackend.CUDNN_ATTENTION)


def torch_cpu(case):
    return through_sdpa(case, SDPBackend.MATH)


def flash2(case):
    if case.equal and not case.window:
        return through_sdpa(case, SDPBackend.FLASH_ATTENTION)
    data = case.ragged()

    def cumulative(lengths):
        return torch.tensor([0, *lengths], device=case.device, dtype=torch.int32).cumsum(0, dtype=torch.int32)

    cu_q, cu_k = cumulative(case.q_lengths), cumulative(case.kv_lengths)
    longest = (max(case.q_lengths), max(case.kv_lengths))
    # Causal lengths are aligned at their ends, as prefixes want it.
    options = {"scale": case.scale}
    if case.window:
        options |= {"window_size_left": case.window - 1, "window_size_right": 0}

    def attend(i):
        q, k, v, _ = data[i]
        return torch.ops.aten._flash_attention_forward(q, k, v, cu_q, cu_k, *longest, 0.0, True, False, **options)

    kept = [attend(i) for i in range(len(data))]

    def backward(i):
        q, k, v, d_o = data[i]
        out, lse, seed, offset = kept[i][:4]
        torch.ops.aten._flash_attention_backward(
            d_o, q, k, v, out, lse, cu_q, cu_k, *longest, 0.0, True, seed, offset, **options
        )

    return attend, backward, len(data)


class Ragged:
    """Graphs of cudnn-frontend over packed rows: (rows, heads, lanes) of all tasks behind each other."""

    def __init__(self, case, cudnn):
        self.case, self.cudnn = case, cudnn
        self.data = case.ragged()
        self.handle = cudnn.create_handle()
        cudnn.set_stream(handle=self.handle, stream=torch.cuda.current_stream().cuda_stream)
        self.batch, self.q_most, self.kv_most = len(case.tasks), max(case.q_lengths), max(case.kv_lengths)
        self.lengths = [self.column(case.q_lengths, torch.int32), self.column(case.kv_lengths, torch.int32)]
        self.offsets = [self.offset(case.q_lengths, case.q_heads), self.offset(case.kv_lengths, case.kv_heads)]
        self.out = [torch.empty_like(q) for q, _, _, _ in self.data]
        self.stats = [
            torch.empty(self.batch, case.q_heads, self.q_most, 1, device=case.device, dtype=torch.float32) for _ in self.data
        ]
        self.gradients = [torch.empty_like(x) for x in self.data[0][:3]]
        self.forward_graph, self.forward_tensors = self.build(False)
        self.backward_graph, self.backward_tensors = self.build(True)
        size = max(self.forward_graph.get_workspace_size(), self.backward_graph.get_workspace_size())
        self.workspace = torch.empty(size, device=case.device, dtype=torch.uint8)

    def column(self, values, dtype):
        return torch.tensor(values, device=self.case.device, dtype=dtype).view(-1, 1, 1, 1)

    def offset(self, lengths, heads):
        sums = [0]
        for length in lengths:
            sums.append(sums[-1] + length * heads * self.case.dim)
        return self.column(sums, torch.int64)

    def build(self, backward):
        cudnn, case = self.cudnn, self.case
        graph = cudnn.pygraph(
            io_data_type=cudnn.data_type.BFLOAT16,
            intermediate_data_type=cudnn.data_type.FLOAT,
            compute_data_type=cudnn.data_type.FLOAT,
            handle=self.handle,
        )

        def small(name, like, kind):
            return graph.tensor(name=name, dim=list(like.shape), stride=list(like.stride()), data_type=kind)

        int32, int64 = cudnn.data_type.INT32, cudnn.data_type.INT64
        lengths = [small(name, x, int32) for name, x in zip(("len_q", "len_kv"), self.lengths)]
        offsets = [small(name, x, int64) for name, x in zip(("off_q", "off_kv"), self.offsets)]
        shape = {0: (case.q_heads, self.q_most), 1: (case.kv_heads, self.kv_most)}

        def place(side):
            heads, rows = shape[side]
            return [self.batch, heads, rows, case.dim], [rows * heads * case.dim, case.dim, heads * case.dim, 1]

        def packed(name, side):
            dim, stride = place(side)
            return graph.tensor(
                name=name, dim=dim, stride=stride, data_type=cudnn.data_type.BFLOAT16, ragged_offset=offsets[side]
            )

        def output(tensor, side):
            dim, stride = place(side)
            tensor.set_output(True).set_dim(dim).set_stride(stride).set_ragged_offset(offsets[side])

        q, k, v = packed("q", 0), packed("k", 1), packed("v", 1)
        mask = {
            "attn_scale": case.scale,
            "use_padding_mask": True,
            "seq_len_q": lengths[0],
            "seq_len_kv": lengths[1],
            "diagonal_alignment": cudnn.diagonal_alignment.BOTTOM_RIGHT,
            "diagonal_band_right_bound": 0,
        }
        if case.window:
            mask["diagonal_band_left_bound"] = case.window
        common = dict(zip((*lengths, *offsets), (*self.lengths, *self.offsets)))
        stats_dim, stats_stride = list(self.stats[0].shape), list(self.stats[0].stride())
        if backward:
            o, d_o = packed("o", 0), packed("d_o", 0)
            stats = graph.tensor(name="stats", dim=stats_dim, stride=stats_stride, data_type=cudnn.data_type.FLOAT)
            dq, dk, dv = graph.sdpa_backward(
                q=q,
                k=k,
                v=v,
                o=o,
                dO=d_o,
                stats=stats,
                max_total_seq_len_q=sum(case.q_lengths),
                max_total_seq_len_kv=sum(case.kv_lengths),
                **mask,
            )
            output(dq, 0)
            output(dk, 1)
            output(dv, 1)
            tensors = (common, q, k, v, d_o, o, stats, dq, dk, dv)
        else:
            o, stats = graph.sdpa(q=q, k=k, v=v, generate_stats=True, **mask)
            output(o, 0)
            stats.set_output(True).set_data_type(cudnn.data_type.FLOAT).set_dim(stats_dim).set_stride(stats_stride)
            tensors = (common, q, k, v, o, stats)
        graph.validate()
        graph.build_operation_graph()
        graph.create_execution_plans([cudnn.heur_mode.A, cudnn.heur_mode.FALLBACK])
        graph.check_support()
        graph.build_plans()
        return graph, tensors

    def forward(self, i):
        common, q, k, v, o, stats = self.forward_tensors
        values = dict(zip((q, k, v, o, stats), (*self.data[i][:3], self.out[i], self.stats[i])))
        self.forward_graph.execute(common | values, self.workspace, handle=self.handle)

    def backward(self, i):
        common, *rest = self.backward_tensors
        values = dict(zip(rest, (*self.data[i], self.out[i], self.stats[i], *self.gradients)))
        self.backward_graph.execute(common | values, self.workspace, handle=self.handle)


def cudnn_ragged(case):
    try:
        import cudnn
    except ImportError as error:
        raise Unfit(f"no cudnn-frontend: {error}") from error
    if case.equal and not case.window:
        raise Unfit("equal documents are for the dense peer")
    ragged = Ragged(case, cudnn)
    for i in range(len(ragged.data)):
        ragged.forward(i)
    return ragged.forward, ragged.backward, len(ragged.data)


# ==== timing


def group_ms(device, work, calls, copies, first):
    if device == "cpu":
        start = time.perf_counter()
        for i in range(calls):
            work((first + i) % copies)
        return (time.perf_counter() - start) * 1e3 / calls
    begin, end = torch.cuda.Event(enable_timing=True), torch.cuda.Event(enable_timing=True)
    begin.record()
    for i in range(calls):
        work((first + i) % copies)
    end.record()
    end.synchronize()
    return begin.elapsed_time(end) / calls


class Prepared:
    """A peer that is ready for a case."""

    def __init__(self, make, case):
        self.device = case.device
        forward, backward, self.copies = make(case)
        self.work = {"forward_ns": forward, "backward_ns": backward}
        self.calls, self.next = {}, 0
        for key, work in self.work.items():
            for i in range(self.copies):
                work(i)
            ms = group_ms(self.device, work, 2, self.copies, 0)
            self.calls[key] = max(1, min(int(TIME_MS / ms) + 1, MAX_CALLS)) if self.device != "cpu" else 1

    def times(self, samples):
        answer = {}
        for key, work in self.work.items():
            group_ms(self.device, work, self.calls[key], self.copies, self.next)  # it was another's turn
            answer[key] = []
            for _ in range(samples):
                ms = group_ms(self.device, work, self.calls[key], self.copies, self.next)
                self.next += self.calls[key]
                answer[key].append(max(1, round(ms * 1e6)))
        return answer


class Peers:
    def __init__(self, device, only_cudnn):
        self.device = device
        if device == "cpu":
            self.makes = {"torch cpu": torch_cpu}
        else:
            number = torch.backends.cudnn.version()
            version = f"{number // 10000}.{number // 100 % 100}.{number % 100}"
            self.makes = {f"cudnn {version} dense": cudnn_dense, f"cudnn {version} ragged": cudnn_ragged}
            if not only_cudnn:
                self.makes["flash-attention 2"] = flash2
        self.name, self.ready = None, {}

    def prepare(self, asked):
        self.ready = {}
        gc.collect()
        if self.device != "cpu":
            torch.cuda.empty_cache()
        self.name = asked["case"]
        for name, make in self.makes.items():
            try:
                self.ready[name] = Prepared(make, Case(asked, self.device))
            except Exception as error:  # noqa: BLE001  whatever a library throws is what it cannot do
                text = str(error).strip().splitlines()
                self.ready[name] = f"{type(error).__name__}: {text[0] if text else ''}"[:200]

    def answer(self, asked):
        if asked["case"] != self.name:
            self.prepare(asked)
        return {
            name: {"error": ready} if isinstance(ready, str) else ready.times(asked["samples"])
            for name, ready in self.ready.items()
        }


# ==== other versions of cuDNN


def loaded_cudnn():
    """Where the libcudnn.so.9 of this process is."""
    torch.backends.cudnn.version()
    with open("/proc/self/maps", encoding="utf-8") as maps:
        paths = {line.split()[-1] for line in maps if "/libcudnn.so" in line}
    return {os.path.realpath(path) for path in paths}


def others(folders, search):
    paths = [os.path.join(folder, "libcudnn.so.9") for folder in folders]
    if search:
        paths += [path for pattern in SYSTEM_CUDNN for path in glob.glob(pattern)]
    seen = loaded_cudnn()
    for path in paths:
        real = os.path.realpath(path)
        if os.path.exists(real) and real not in seen:
            seen.add(real)
            yield path


class Other:
    """This program with another libcudnn, as a process of its own."""

    def __init__(self, path):
        folder = os.path.dirname(path)
        search = ":".join(x for x in (folder, os.environ.get("LD_LIBRARY_PATH")) if x)
        self.name = f"cudnn of {folder}"[:60]
        self.process = subprocess.Popen(
            [sys.executable, os.path.abspath(__file__), "--only-cudnn", "--no-search"],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
            env=os.environ | {"LD_LIBRARY_PATH": search, "LD_PRELOAD": path, "PYTORCH_SKIP_CUDNN_COMPATIBILITY_CHECK": "1"},
        )

    def answer(self, line):
        """Nothing, once the process has ended; that is said with the case that found it."""
        if self.process is None:
            return {}
        try:
            self.process.stdin.write(line)
            self.process.stdin.flush()
            return json.loads(self.process.stdout.readline())
        except (OSError, ValueError):
            if self.process.poll() is None:
                self.process.kill()
            status, self.process = self.process.wait(), None
            return {self.name: {"error": f"its process has ended with {status}, see its messages; not asked again"}}


def main():
    parser = argparse.ArgumentParser(add_help=False)
    parser.add_argument("--also", action="append", default=[])
    parser.add_argument("--no-search", action="store_true")
    parser.add_argument("--only-cudnn", action="store_true")
    parser.add_argument("--cpu", action="store_true")
    parser.add_argument("-h", "--help", action="store_true")
    options = parser.parse_args()
    if options.help:
        print(__doc__)
        return
    # What libraries print must not get between the answers.
    answers = os.fdopen(os.dup(1), "w", encoding="utf-8")
    os.dup2(2, 1)
    torch.manual_seed(1)
    peers = Peers("cpu" if options.cpu else "cuda", options.only_cudnn)
    more = [] if options.cpu else [Other(path) for path in others(options.also, not options.no_search)]
    for line in sys.stdin:
        answer = peers.answer(json.loads(line))
        for other in more:
            answer |= {name: x for name, x in other.answer(line).items() if name not in answer}
        answers.write(json.dumps(answer) + "\n")
        answers.flush()


if __name__ == "__main__":
    main()
