#!/usr/bin/env python3
"""The reference's data loader on the files of bench/loader, of which it is the peer.

    pip install torch pillow transformers
    build/bench/loader --peer "python3 bench/peers/loader.py"

nanoVLM's path: records of a JSON Lines file, Pillow's decoder and convert("RGB"), torchvision's Resize((S, S)) and
ToTensor (spelt out here, so that torchvision is not needed), VQACollator's padding and labels, in a
torch.utils.data.DataLoader with so many worker processes. A first epoch starts the workers and is not timed.
"""

import argparse
import json
import os
import sys
import time
from pathlib import Path

os.environ["TOKENIZERS_PARALLELISM"] = "false"

import numpy  # noqa: E402  (the setting must come first)
import torch  # noqa: E402
from PIL import Image  # noqa: E402
from transformers import PreTrainedTokenizerFast  # noqa: E402


class Records(torch.utils.data.Dataset):
    def __init__(self, folder, size):
        self.folder, self.size = Path(folder), size
        with open(self.folder / "train.jsonl", encoding="utf-8") as lines:
            self.records = [json.loads(line) for line in lines]

    def __len__(self):
        return len(self.records)

    def __getitem__(self, index):
        record = self.records[index]
        with Image.open(self.folder / record["images"][0]) as file:
            picture = file.convert("RGB").resize((self.size, self.size), Image.Resampling.BILINEAR)
        image = torch.from_numpy(numpy.array(picture)).permute(2, 0, 1).contiguous().float().div(255)
        turn = record["texts"][0]
        return image, f"Question: {turn['user']} Answer:", turn["assistant"]


class Collate:
    def __init__(self, tokenizer, length):
        self.tokenizer, self.length = tokenizer, length

    def __call__(self, samples):
        images, questions, answers = zip(*samples)
        texts = [question + answer + self.tokenizer.eos_token for question, answer in zip(questions, answers)]
        batch = self.tokenizer(
            texts, padding="max_length", padding_side="left", truncation=True, max_length=self.length, return_tensors="pt"
        )
        ids, mask = batch["input_ids"], batch["attention_mask"]
        labels = ids.roll(-1, 1)
        labels[:, -1] = -100
        lengths = [len(self.tokenizer(text)["input_ids"]) for text in texts]
        for i, question in enumerate(questions):
            if lengths[i] > self.length:
                labels[i] = -100
                continue
            first = int(mask[i].argmax())
            labels[i, : first + len(self.tokenizer(question)["input_ids"]) - 1] = -100
        return {"image": torch.stack(images), "input_ids": ids, "attention_mask": mask, "labels": labels}


def main():
    parser = argparse.ArgumentParser(description="The speed of PyTorch's DataLoader on a folder with train.jsonl.")
    parser.add_argument("--dataset", required=True, help="folder with train.jsonl and the pictures it names")
    parser.add_argument("--tokenizer", required=True, help="folder with tokenizer.json")
    parser.add_argument("--image_size", type=int, default=224)
    parser.add_argument("--batch", type=int, default=64)
    parser.add_argument("--workers", type=int, nargs="+", default=[0, 1, 2])
    parser.add_argument("--epochs", type=int, default=3, help="timed ones")
    parser.add_argument("--json", action="store_true")
    arguments = parser.parse_args()
    if not (Path(arguments.dataset) / "train.jsonl").is_file():
        sys.exit(f"loader.py: {arguments.dataset}: expected a folder with train.jsonl")

    tokenizer = PreTrainedTokenizerFast(
        tokenizer_file=str(Path(arguments.tokenizer) / "tokenizer.json"), eos_token="<|endoftext|>"
    )
    tokenizer.pad_token = tokenizer.eos_token
    records = Records(arguments.dataset, arguments.image_size)
    rates = {}
    for workers in arguments.workers:
        loader = torch.utils.data.DataLoader(
            records,
            arguments.batch,
            shuffle=True,
            collate_fn=Collate(tokenizer, 79),
            num_workers=workers,
            drop_last=True,
            persistent_workers=workers > 0,
        )
        seconds = []
        for _ in range(1 + arguments.epochs):
            start = time.perf_counter()
            for batch in loader:
                assert batch["image"].shape[0] == arguments.batch
            seconds.append(time.perf_counter() - start)
        rates[str(workers)] = round(len(loader) * arguments.batch / min(seconds[1:]), 1)
    figures = {"bench": "loader", "implementation": "pytorch", "samples_per_s": rates}
    print(json.dumps(figures) if arguments.json else figures)


if __name__ == "__main__":
    main()
