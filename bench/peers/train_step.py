#!/usr/bin/env python3
"""PyTorch's time for one training step of nanoVLM v1 on the CPU: the peer of bench/train_step.

    pip install torch transformers safetensors
    python3 bench/peers/train_step.py --config 222m --batch 12 --dtype bf16 --threads 2 --json

A step is train.py's: forward under autocast (bf16) or without (fp32), backward, AdamW with two groups, gradients set to
None. --batch-file takes the tensors images_u8 [B,3,S,S], input_ids, attention_mask and labels [B,T] from a safetensors
file, so that both programs compute the same batch; without it the batch is drawn at random. stdout holds the figures
(with --json one JSON object and nothing else).
"""

import argparse
import os
import sys

arguments_threads = sys.argv[sys.argv.index("--threads") + 1] if "--threads" in sys.argv[:-1] else "2"
os.environ.setdefault("OMP_NUM_THREADS", arguments_threads)

import torch  # noqa: E402  (the thread count must be set before)

import shapes  # noqa: E402
import twin  # noqa: E402


def random_batch(config, batch, seed):
    """Pictures of noise; texts as long as lm_max_length, the last quarter of them answer, some padded on the left."""
    generator = torch.Generator().manual_seed(seed)
    T, S = config["lm_max_length"], config["vit_img_size"]
    images = torch.randint(0, 256, (batch, 3, S, S), generator=generator, dtype=torch.uint8)
    input_ids = torch.randint(1, config["lm_vocab_size"], (batch, T), generator=generator)
    attention_mask = torch.ones(batch, T, dtype=torch.long)
    labels = torch.full((batch, T), twin.IGNORED_LABEL)
    answer = max(2, T // 4)
    for row in range(batch):
        padding = (row * T) // (2 * batch)
        attention_mask[row, :padding] = 0
        input_ids[row, :padding] = 0
        labels[row, T - answer : T - 1] = input_ids[row, T - answer + 1 :]
    return images, input_ids, attention_mask, labels


def read_batch(path):
    from safetensors.torch import load_file

    tensors = load_file(path)
    missing = {"images_u8", "input_ids", "labels"} - tensors.keys()
    if missing:
        shapes.fail(f"--batch-file {path}: expected the tensors {sorted(missing)} too, found {sorted(tensors)}")
    input_ids = tensors["input_ids"].long()
    attention_mask = tensors.get("attention_mask", torch.ones_like(input_ids)).long()
    return tensors["images_u8"], input_ids, attention_mask, tensors["labels"].long()


def parse_arguments():
    parser = argparse.ArgumentParser(description="PyTorch's time for one training step of nanoVLM v1 on the CPU.")
    parser.add_argument("--config", default="222m", help="222m, laptop, or a JSON file with VLMConfig's fields")
    parser.add_argument("--batch", type=int, default=12)
    parser.add_argument("--batch-file", help="safetensors file with the batch; wins over --batch")
    parser.add_argument("--dtype", choices=["bf16", "fp32"], default="bf16", help="bf16: torch.autocast, as train.py")
    parser.add_argument("--threads", type=int, default=2)
    parser.add_argument("--steps", type=int, default=5, help="timed steps")
    parser.add_argument("--warmup", type=int, default=1)
    parser.add_argument("--compile", action="store_true", help="torch.compile the model")
    parser.add_argument("--json", action="store_true")
    return parser.parse_args()


def main():
    arguments = parse_arguments()
    torch.set_num_threads(arguments.threads)
    torch.manual_seed(0)
    config = shapes.read_config(arguments.config)
    model = twin.Twin(config)
    parameters = model.parameter_count()
    if arguments.config == "222m" and parameters != twin.PARAMETERS_222M:
        shapes.fail(f"222m: expected {twin.PARAMETERS_222M:,} parameters, found {parameters:,}")

    batch = read_batch(arguments.batch_file) if arguments.batch_file else random_batch(config, arguments.batch, seed=0)
    images = batch[0].float().div_(255)
    projector = list(model.projector.parameters())
    backbones = list(model.vision.parameters()) + list(model.decoder.parameters())
    optimizer = torch.optim.AdamW([{"params": projector, "lr": 2e-3}, {"params": backbones, "lr": 1e-4}])
    compute_loss = torch.compile(model) if arguments.compile else model
    losses = []

    def step():
        optimizer.zero_grad()
        with torch.autocast("cpu", dtype=torch.bfloat16, enabled=arguments.dtype == "bf16"):
            loss = compute_loss(images, *batch[1:])
        loss.backward()
        optimizer.step()
        losses.append(loss.item())

    figures = twin.report(twin.timed(step, arguments.steps, arguments.warmup))
    size = images.shape[0]
    figures = {
        "bench": "train_step",
        "implementation": "pytorch" + ("-compiled" if arguments.compile else ""),
        "config": arguments.config,
        "parameters": parameters,
        "batch": size,
        "dtype": arguments.dtype,
        "samples_per_s": round(size / figures["median_s"], 4),
        "first_loss": losses[0],
        "last_loss": losses[-1],
        **figures,
    }
    shapes.show(figures, arguments.json)


if __name__ == "__main__":
    main()
