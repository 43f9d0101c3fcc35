#!/usr/bin/env python3
"""The reference's speed from an encoded picture to its tensor: the peer of bench/image.

    pip install torch torchvision pillow
    python3 bench/peers/image.py --json

One picture at a time on one thread, from bytes in memory: Pillow's decoder and convert("RGB"), torchvision's
Resize((S, S)) and ToTensor. The stages are timed apart and together.
"""

import argparse
import io
import json
import os
import statistics
import sys
import time
from pathlib import Path

os.environ["OMP_NUM_THREADS"] = "1"

import PIL  # noqa: E402  (the thread count must be set before)
import torch  # noqa: E402
import torchvision.transforms as transforms  # noqa: E402
from PIL import Image  # noqa: E402

PICTURES = Path(__file__).resolve().parents[2] / "tests/fixtures/images/files"
NAMES = ["jpeg-640x480.jpg", "jpeg-1000x700.jpg", "png-225x223.png", "webp-lossy.webp"]


def timed_ms(action, seconds):
    """(median, least) of one call, repeated for so long, after 3 untimed ones."""
    for _ in range(3):
        action()
    times, end = [], time.perf_counter() + seconds
    while time.perf_counter() < end:
        start = time.perf_counter()
        action()
        times.append(time.perf_counter() - start)
    return round(1e3 * statistics.median(times), 4), round(1e3 * min(times), 4)


def main():
    parser = argparse.ArgumentParser(description="Pillow's and torchvision's speed from bytes to a tensor.")
    parser.add_argument("--size", type=int, default=224, help="side of the tensor")
    parser.add_argument("--seconds", type=float, default=1.0, help="for each figure")
    parser.add_argument("--json", action="store_true")
    arguments = parser.parse_args()
    if arguments.size < 1 or arguments.seconds <= 0:
        sys.exit("image.py: expected a positive --size and positive --seconds")

    torch.set_num_threads(1)
    to_tensor = transforms.Compose([transforms.Resize((arguments.size, arguments.size)), transforms.ToTensor()])
    rows = []
    for name in NAMES:
        content = (PICTURES / name).read_bytes()

        def decode():
            return Image.open(io.BytesIO(content)).convert("RGB")

        picture = decode()
        both, least = timed_ms(lambda: to_tensor(decode()), arguments.seconds)
        rows.append(
            {
                "picture": name,
                "decode_ms": timed_ms(decode, arguments.seconds)[0],
                "tensor_ms": timed_ms(lambda: to_tensor(picture), arguments.seconds)[0],
                "both_ms": both,
                "least_ms": least,
            }
        )
    figures = {
        "bench": "image",
        "implementation": "pillow",
        "versions": {"pillow": PIL.__version__, "torch": torch.__version__},
        "size": arguments.size,
        "rows": rows,
    }
    if arguments.json:
        print(json.dumps(figures))
    else:
        for row in rows:
            print("  ".join(f"{key} {value}" for key, value in row.items()))


if __name__ == "__main__":
    main()
