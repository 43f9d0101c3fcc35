#!/usr/bin/env python3
"""Hugging Face tokenizers' speed on the texts of bench/tokenizer, of which it is the peer.

    pip install tokenizers
    build/bench/tokenizer --peer "python3 bench/peers/tokenizer.py"

One text at a time on one thread; its own cache of words is warm, as it is in training.
"""

import argparse
import json
import os
import statistics
import time
from pathlib import Path

os.environ["TOKENIZERS_PARALLELISM"] = "false"

from tokenizers import Tokenizer  # noqa: E402  (the setting must come first)

ROOT = Path(__file__).resolve().parents[2]


def median_seconds(action, seconds=0.5, least=5):
    action()
    times = []
    while len(times) < least or sum(times) < seconds:
        start = time.perf_counter()
        action()
        times.append(time.perf_counter() - start)
    return statistics.median(times)


def main():
    parser = argparse.ArgumentParser(description="Hugging Face tokenizers' speed.")
    parser.add_argument("--tokenizer", default=str(ROOT / "assets/tokenizer/tokenizer.json"))
    parser.add_argument("--lines", default=str(ROOT / "tests/fixtures/tokenizer/strings.jsonl"))
    parser.add_argument("--json", action="store_true", help="print one JSON object")
    arguments = parser.parse_args()

    tokenizer = Tokenizer.from_file(arguments.tokenizer)
    with open(arguments.lines, encoding="utf-8") as file:
        lines = [json.loads(line) for line in file]
    corpora = {"everything": lines, "questions": [line for line in lines if line.get("category") == "cauldron"]}

    def encode_all(texts):
        for text in texts:
            tokenizer.encode(text, add_special_tokens=False)

    result = {"load_s": median_seconds(lambda: Tokenizer.from_file(arguments.tokenizer)), "encode_s": {}}
    for name, corpus in corpora.items():
        texts = [line["text"] for line in corpus]
        if texts:
            result["encode_s"][name] = median_seconds(lambda: encode_all(texts))
    if arguments.json:
        print(json.dumps(result))
        return
    print(f"load {1e3 * result['load_s']:.1f} ms")
    for name, seconds in result["encode_s"].items():
        size = sum(len(line["text"].encode()) for line in corpora[name])
        print(f"encode {name} {1e3 * seconds:.1f} ms, {size / seconds * 1e-6:.1f} MB/s")


main()
