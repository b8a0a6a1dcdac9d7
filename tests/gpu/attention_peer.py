#!/usr/bin/env python3
"""Speed of PyTorch's attention on the shapes of attention_timing.cu that it has: causal, dense, one document.

    attention_peer.py FILE.json

Forward, and backward alone (forward's graph kept), CUDA events, random normal values, warm, median of 30; inputs rotate when
they would stay in L2. FLOPs are those of the exact causal area, the backward's 2.5 times the forward's."""

import json
import sys
import time

import torch
import torch.nn.functional as F
from torch.nn.attention import SDPBackend, sdpa_kernel

SHAPES = [  # rows, query heads, KV heads, head dim
    (4096, 32, 8, 128),
    (16384, 32, 8, 128),
    (32768, 32, 8, 128),
    (16384, 28, 4, 128),
    (16384, 64, 8, 64),
]
BACKENDS = {"cudnn": SDPBackend.CUDNN_ATTENTION, "flash2": SDPBackend.FLASH_ATTENTION}
REPEATS, WARM_SECONDS, ROTATE_BYTES = 30, 0.4, 400 << 20


def median_ms(work, sets):
    start, i = time.monotonic(), 0
    while time.monotonic() - start < WARM_SECONDS:
        work(i % sets)
        torch.cuda.synchronize()
        i += 1
    events = []
    for i in range(REPEATS):
        begin, end = torch.cuda.Event(enable_timing=True), torch.cuda.Event(enable_timing=True)
        begin.record()
        work(i % sets)
        end.record()
        events.append((begin, end))
    torch.cuda.synchronize()
    return sorted(a.elapsed_time(b) for a, b in events)[REPEATS // 2]


def measure(backend, rows, q_heads, kv_heads, dim):
    def normal(heads, grad):
        return torch.randn(1, heads, rows, dim, device="cuda", dtype=torch.bfloat16, requires_grad=grad)

    bytes_a_set = 2 * rows * dim * (4 * q_heads + 4 * kv_heads)
    sets = ROTATE_BYTES // bytes_a_set + 1
    data = [(normal(q_heads, True), normal(kv_heads, True), normal(kv_heads, True)) for _ in range(sets)]
    d_o = [normal(q_heads, False) for _ in range(sets)]
    flops = 4 * rows * (rows + 1) / 2 * q_heads * dim

    with sdpa_kernel(backend):

        def forward(i):
            with torch.no_grad():
                F.scaled_dot_product_attention(*data[i], is_causal=True, enable_gqa=q_heads != kv_heads)

        fwd = median_ms(forward, sets)
        out = [F.scaled_dot_product_attention(*x, is_causal=True, enable_gqa=q_heads != kv_heads) for x in data]

        def backward(i):
            torch.autograd.grad(out[i], data[i], d_o[i], retain_graph=True)

        bwd = median_ms(backward, sets)
    return {
        "fwd_ms": fwd,
        "fwd_tflops": flops / fwd * 1e-9,
        "bwd_ms": bwd,
        "bwd_tflops": 2.5 * flops / bwd * 1e-9,
    }


def main():
    torch.manual_seed(1)
    result = {
        "gpu": torch.cuda.get_device_name(),
        "torch": torch.__version__,
        "cudnn": torch.backends.cudnn.version(),
        "timing": [],
    }
    for rows, q_heads, kv_heads, dim in SHAPES:
        for name, backend in BACKENDS.items():
            entry = {"backend": name, "rows": rows, "q_heads": q_heads, "kv_heads": kv_heads, "head_dim": dim}
            try:
                entry.update(measure(backend, rows, q_heads, kv_heads, dim))
                print(
                    f"{name:7} causal {rows // 1024}k {q_heads}:{kv_heads} hd{dim}: fwd {entry['fwd_ms']:8.3f} ms "
                    f"{entry['fwd_tflops']:5.0f} TF/s   bwd {entry['bwd_ms']:8.3f} ms {entry['bwd_tflops']:5.0f} TF/s"
                )
            except RuntimeError as error:
                entry["error"] = str(error).splitlines()[0]
                print(f"{name:7} {rows} {q_heads}:{kv_heads} hd{dim}: {entry['error']}")
            result["timing"].append(entry)
            torch.cuda.empty_cache()
    with open(sys.argv[1], "w", encoding="utf-8") as file:
        json.dump(result, file, indent=1)


if __name__ == "__main__":
    main()
