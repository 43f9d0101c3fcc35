#!/usr/bin/env python3
"""PyTorch's time for attention on a GPU, by each of its backends (cuDNN's among them): the peer of bench/attention.

    pip install torch
    python3 bench/peers/attention.py --preset lm --seq 128 --batch 256 --json

Forward and backward of scaled dot-product attention without RoPE, which ours includes: as CUDA graphs of many calls over
operands that rotate beyond the last cache, median of several replays. stdout holds a line a backend and direction (with
--json one JSON object and nothing else).
"""

import argparse
import json
import statistics

import torch
from torch.nn.attention import SDPBackend, sdpa_kernel

BACKENDS = {
    "cudnn": SDPBackend.CUDNN_ATTENTION,
    "flash": SDPBackend.FLASH_ATTENTION,
    "efficient": SDPBackend.EFFICIENT_ATTENTION,
}


def operands(B, T, H, G, D, sets):
    """[B, heads, T, D] views of rows [B * T, heads * D], as a linear layer writes them."""

    def rows(heads, grad):
        x = torch.randn(B, T, heads, D, device="cuda", dtype=torch.bfloat16).transpose(1, 2)
        return x.detach().requires_grad_(grad)

    return [(rows(H, True), rows(G, True), rows(G, True), rows(H, False)) for _ in range(sets)]


def graph_of(calls):
    """All calls as one graph, warmed up before it is recorded."""
    stream = torch.cuda.Stream()
    with torch.cuda.stream(stream):
        for call in calls[:2]:
            call()
    torch.cuda.synchronize()
    graph = torch.cuda.CUDAGraph()
    with torch.cuda.graph(graph):
        for call in calls:
            call()
    return graph


def microseconds(calls, replays):
    graph = graph_of(calls)
    times = []
    for _ in range(replays + 3):
        start, stop = torch.cuda.Event(enable_timing=True), torch.cuda.Event(enable_timing=True)
        start.record()
        graph.replay()
        stop.record()
        torch.cuda.synchronize()
        times.append(start.elapsed_time(stop) * 1e3 / len(calls))
    return statistics.median(times[3:])


def measure(backend, arguments, H, G, causal):
    """Times of forward, and of both directions less forward's: a backward pass alone cannot be recorded."""
    B, T, D = arguments.batch, arguments.seq, 64
    sets = operands(B, T, H, G, D, arguments.sets)
    turns = [sets[i % len(sets)] for i in range(arguments.calls)]

    def forward(q, k, v):
        return torch.nn.functional.scaled_dot_product_attention(q, k, v, is_causal=causal, enable_gqa=G != H)

    def only_forward(q, k, v):
        with torch.no_grad():
            return forward(q, k, v)

    def both(q, k, v, do):
        return torch.autograd.grad(forward(q, k, v), (q, k, v), do)

    with sdpa_kernel(BACKENDS[backend]):
        fwd = microseconds([lambda s=s: only_forward(*s[:3]) for s in turns], arguments.replays)
        fwdbwd = microseconds([lambda s=s: both(*s) for s in turns], arguments.replays)
    return {"fwd": fwd, "bwd": fwdbwd - fwd}


def parse_arguments():
    parser = argparse.ArgumentParser(description="PyTorch's time for attention on a GPU.")
    parser.add_argument("--preset", choices=["lm", "vit"], default="lm", help="as bench/attention")
    parser.add_argument("--seq", type=int, help="default 128 for lm, 196 for vit")
    parser.add_argument("--batch", type=int, default=256)
    parser.add_argument("--sets", type=int, default=4, help="of operands")
    parser.add_argument("--calls", type=int, default=16, help="in a graph")
    parser.add_argument("--replays", type=int, default=20, help="timed")
    parser.add_argument("--json", action="store_true")
    return parser.parse_args()


def main():
    arguments = parse_arguments()
    lm = arguments.preset == "lm"
    arguments.seq = arguments.seq or (128 if lm else 196)
    H, G, causal = (9, 3, True) if lm else (12, 12, False)
    figures = {
        "bench": "attention",
        "preset": arguments.preset,
        "seq": arguments.seq,
        "batch": arguments.batch,
        "gpu": torch.cuda.get_device_name(),
        "torch": torch.__version__,
        "cudnn": torch.backends.cudnn.version(),
        "us": {},
    }
    for backend in BACKENDS:
        try:
            figures["us"][backend] = measure(backend, arguments, H, G, causal)
        except RuntimeError as error:
            figures["us"][backend] = {"error": str(error).splitlines()[0]}
    if arguments.json:
        print(json.dumps(figures))
        return
    print(f"{figures['gpu']}, torch {figures['torch']}, cuDNN {figures['cudnn']}")
    for backend, times in figures["us"].items():
        print(f"{backend:>10}", "  ".join(f"{k} {v:.1f} us" if k != "error" else v for k, v in times.items()))


if __name__ == "__main__":
    main()
