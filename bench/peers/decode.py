#!/usr/bin/env python3
"""PyTorch's speed when a language model of SmolLM2-135M's shapes writes one token after another: the peer of bench/decode.

    pip install torch transformers
    python3 bench/peers/decode.py --dtype bf16 --threads 2 --json

One sequence, greedy, transformers' Llama with its key-value cache, random weights held in the given dtype. The prompt's
pass is timed apart (prefill_s); tokens_per_s counts the tokens after it.
"""

import argparse
import os
import statistics
import sys
import time

arguments_threads = sys.argv[sys.argv.index("--threads") + 1] if "--threads" in sys.argv[:-1] else "2"
os.environ.setdefault("OMP_NUM_THREADS", arguments_threads)

import torch  # noqa: E402  (the thread count must be set before)
from transformers import DynamicCache, LlamaForCausalLM  # noqa: E402

import shapes  # noqa: E402
import twin  # noqa: E402


@torch.inference_mode()
def decode(model, prompt, new_tokens):
    """(seconds for the prompt, seconds for the tokens after the first)."""
    cache = DynamicCache()
    start = time.perf_counter()
    token = model(input_ids=prompt, past_key_values=cache).logits[:, -1:].argmax(-1)
    prefilled = time.perf_counter()
    for _ in range(new_tokens - 1):
        token = model(input_ids=token, past_key_values=cache).logits[:, -1:].argmax(-1)
    return prefilled - start, time.perf_counter() - prefilled


def main():
    parser = argparse.ArgumentParser(description="PyTorch's decoding speed, SmolLM2-135M's shapes, one sequence.")
    parser.add_argument("--config", default="222m", help="222m, laptop, or a JSON file with VLMConfig's fields")
    parser.add_argument("--dtype", choices=["bf16", "fp32"], default="bf16")
    parser.add_argument("--threads", type=int, default=2)
    parser.add_argument("--prompt", type=int, default=128, help="tokens of the prompt")
    parser.add_argument("--tokens", type=int, default=64, help="tokens to write")
    parser.add_argument("--runs", type=int, default=3, help="timed runs, after one that is not")
    parser.add_argument("--json", action="store_true")
    arguments = parser.parse_args()
    if arguments.tokens < 2:
        shapes.fail(f"--tokens: expected at least 2, found {arguments.tokens}")

    torch.set_num_threads(arguments.threads)
    torch.manual_seed(0)
    config = shapes.read_config(arguments.config)
    model = LlamaForCausalLM(twin.llama_config(config)).eval()
    model = model.to(torch.bfloat16 if arguments.dtype == "bf16" else torch.float32)
    prompt = torch.randint(1, config["lm_vocab_size"], (1, arguments.prompt))

    runs = [decode(model, prompt, arguments.tokens) for _ in range(1 + arguments.runs)][1:]
    figures = twin.report([seconds for _, seconds in runs])
    figures = {
        "bench": "decode",
        "implementation": "pytorch",
        "config": arguments.config,
        "parameters": sum(x.numel() for x in model.parameters()),
        "dtype": arguments.dtype,
        "prompt": arguments.prompt,
        "tokens": arguments.tokens,
        "tokens_per_s": round((arguments.tokens - 1) / figures["median_s"], 2),
        "prefill_s": statistics.median(prefill for prefill, _ in runs),
        **figures,
    }
    shapes.show(figures, arguments.json)


if __name__ == "__main__":
    main()
