#!/usr/bin/env python3
"""Errors of the attention ops and of cuDNN on the same input, against the definition in double.

    attention_accuracy.py [--cpu] FILE.bin...

The files are those of `attention_check dump` (attention_dump.cuh has the form). For o, dq, dk and dv: the norm of the error over
the norm of the result; ours may be 1.3 times cuDNN's at most. Exit: 0 so it is, 1 not. --cpu: torch's own bf16 attention on the
CPU in cuDNN's place, to try the script."""

import sys

import torch
import torch.nn.functional as F
from torch.nn.attention import SDPBackend, sdpa_kernel

AT_MOST = 1.3
BF16, DOUBLE = torch.bfloat16, torch.float64


def read(path):
    with open(path, "rb") as file:
        raw = bytearray(file.read())
    T, G, R, D = torch.frombuffer(raw, dtype=torch.int64, count=4).tolist()
    at = 32

    def take(dtype, *shape):
        nonlocal at
        count = 1
        for n in shape:
            count *= n
        x = torch.frombuffer(raw, dtype=dtype, count=count, offset=at).view(*shape)
        at += count * x.element_size()
        return x

    q, k, v = take(BF16, G, T, R, D), take(BF16, G, T, D), take(BF16, G, T, D)
    d_o = take(BF16, T, G, R, D)
    results = [
        {"o": take(kind, T, G, R, D), "dq": take(kind, G, T, R, D), "dk": take(kind, G, T, D), "dv": take(kind, G, T, D)}
        for kind in (BF16, DOUBLE)
    ]
    if at != len(raw):
        raise SystemExit(f"{path}: {len(raw)} bytes, wanted {at}")
    return (q, k, v, d_o), results[0], results[1]


def of_torch(inputs, device, backend):
    """The four results in the file's layouts."""
    q, k, v, d_o = inputs
    G, T, R, D = q.shape
    heads = [
        q.permute(0, 2, 1, 3).reshape(1, G * R, T, D).contiguous(),
        k.reshape(1, G, T, D).contiguous(),
        v.reshape(1, G, T, D).contiguous(),
    ]
    heads = [x.to(device).requires_grad_() for x in heads]
    d_o = d_o.permute(1, 2, 0, 3).reshape(1, G * R, T, D).contiguous().to(device)
    with sdpa_kernel(backend):
        o = F.scaled_dot_product_attention(*heads, is_causal=True, enable_gqa=True)
    dq, dk, dv = torch.autograd.grad(o, heads, d_o)

    def rows(x):  # (G, R, T, D)
        return x.detach().cpu().view(G, R, T, D)

    return {
        "o": rows(o).permute(2, 0, 1, 3),
        "dq": rows(dq).permute(0, 2, 1, 3),
        "dk": dk.cpu().view(G, T, D),
        "dv": dv.cpu().view(G, T, D),
    }


def error(got, want):
    return ((got.double() - want).norm() / want.norm()).item()


def main(arguments):
    cpu = arguments[:1] == ["--cpu"]
    paths = arguments[cpu:]
    if not paths or "-h" in arguments or "--help" in arguments:
        print(__doc__)
        return 0 if paths else 2
    worst = 0.0
    for path in paths:
        inputs, ours, want = read(path)
        peer = of_torch(inputs, "cpu" if cpu else "cuda", SDPBackend.MATH if cpu else SDPBackend.CUDNN_ATTENTION)
        for name, exact in want.items():
            mine, other = error(ours[name], exact), error(peer[name], exact)
            worst = max(worst, mine / other)
            print(f"{path} {name:2} error: ours {mine:.3e}, {'torch' if cpu else 'cuDNN'} {other:.3e}, ratio {mine / other:.2f}")
    print(f"worst ratio {worst:.2f}, wanted {AT_MOST} at most: {'yes' if worst <= AT_MOST else 'NO'}")
    return 0 if worst <= AT_MOST else 1


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
