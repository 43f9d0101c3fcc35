#!/usr/bin/env python3
"""How long safetensors' Python package takes to load a checkpoint of nanoVLM's: the peer of bench/checkpoint.

    pip install torch safetensors
    python3 bench/peers/checkpoint.py --checkpoint FOLDER --json

`load_model` fills the parameters of a module that exists, as nanoVLM's from_pretrained does. `load_file` gives tensors of
their own; it maps the file, so a sum over every tensor is timed with it: only then are the numbers there.
"""

import argparse
import json
import statistics
import sys
import time
from pathlib import Path

import safetensors
import torch
from safetensors.torch import load_file, load_model

sys.path.append(str(Path(__file__).resolve().parents[2] / "tools"))
from check_checkpoint import reference_module  # noqa: E402


def timed(action, runs):
    action()
    times = []
    for _ in range(runs):
        start = time.perf_counter()
        action()
        times.append(time.perf_counter() - start)
    return {"median_s": statistics.median(times), "least_s": min(times)}


def main():
    parser = argparse.ArgumentParser(description="safetensors' Python loader on one checkpoint.")
    parser.add_argument("--checkpoint", type=Path, required=True, help="folder with config.json and model.safetensors")
    parser.add_argument("--runs", type=int, default=5, help="timed runs, after one that is not")
    parser.add_argument("--threads", type=int, default=2)
    parser.add_argument("--json", action="store_true")
    arguments = parser.parse_args()

    torch.set_num_threads(arguments.threads)
    file = arguments.checkpoint / "model.safetensors"
    model = reference_module(json.loads((arguments.checkpoint / "config.json").read_text(encoding="utf-8")))
    figures = {
        "bench": "checkpoint",
        "versions": {"torch": torch.__version__, "safetensors": safetensors.__version__},
        "load_model": timed(lambda: load_model(model, file), arguments.runs),
        "load_file": timed(lambda: [tensor.sum() for tensor in load_file(file).values()], arguments.runs),
    }
    print(json.dumps(figures) if arguments.json else json.dumps(figures, indent=2))


if __name__ == "__main__":
    main()
