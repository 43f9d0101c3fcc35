#!/usr/bin/env python3
"""Turn the easy-VQA package into records that `train` and `eval` read.

    pip install easy-vqa
    python3 tools/make_easy_vqa.py OUT_DIR

easy-VQA (https://pypi.org/project/easy-vqa, MIT): 64 x 64 pictures of one coloured shape each, and short questions
about the shape and its colour, in a published split. OUT_DIR receives

    images/train/*.png   images/test/*.png      the pictures, copied
    train.jsonl          test.jsonl             one record a question, in the_cauldron's schema; paths are
                                                relative to OUT_DIR

The questions keep the package's order. The files are written to OUT_DIR only after everything was read and counted, so
a folder that holds both .jsonl files is complete.
"""

import argparse
import importlib.util
import json
import os
import shutil
import sys
from pathlib import Path

# split: (pictures, questions), as the package publishes them
PUBLISHED_COUNTS = {"train": (4000, 38575), "test": (1000, 9673)}


def fail(message):
    sys.exit(f"make_easy_vqa: {message}")


def find_package(package_dir):
    """Folder `easy_vqa` of the installed package, or of an unpacked wheel."""
    if package_dir is not None:
        root = Path(package_dir)
        root = root / "easy_vqa" if (root / "easy_vqa").is_dir() else root
    else:
        spec = importlib.util.find_spec("easy_vqa")
        if spec is None or spec.origin is None:
            fail("the package easy-vqa is not installed: `pip install easy-vqa`, or name it with --package-dir")
        root = Path(spec.origin).parent
    if not (root / "data").is_dir():
        fail(f"{root}: expected the package's folder `data`, found none")
    return root


def read_split(package, split):
    """(picture names, records) of one split; every question is checked to have its picture and a listed answer."""
    pictures = {path.name for path in (package / "data" / split / "images").glob("*.png")}
    answers = set((package / "data" / "answers.txt").read_text(encoding="utf-8").split())
    file = package / "data" / split / "questions.json"
    records = []
    for index, (question, answer, image_id) in enumerate(json.loads(file.read_text(encoding="utf-8"))):
        if f"{image_id}.png" not in pictures:
            fail(f"{file}: question {index}: expected a picture {image_id}.png, found none")
        if answer not in answers:
            fail(f"{file}: question {index}: expected one of {len(answers)} answers, found {answer!r}")
        text = {"user": question, "assistant": answer, "source": "easy-vqa"}
        records.append({"images": [f"images/{split}/{image_id}.png"], "texts": [text]})
    found = (len(pictures), len(records))
    if found != PUBLISHED_COUNTS[split]:
        fail(f"{package}: {split}: expected (pictures, questions) = {PUBLISHED_COUNTS[split]}, found {found}")
    return pictures, records


def write_split(package, split, pictures, records, out_dir):
    target = out_dir / "images" / split
    target.mkdir(parents=True, exist_ok=True)
    for name in sorted(pictures):
        shutil.copyfile(package / "data" / split / "images" / name, target / name)
    partial = out_dir / f"{split}.jsonl.partial"
    with open(partial, "w", encoding="utf-8") as out:
        out.writelines(json.dumps(record) + "\n" for record in records)
    os.replace(partial, out_dir / f"{split}.jsonl")


def main():
    parser = argparse.ArgumentParser(description="Turn the easy-VQA package into training and test records.")
    parser.add_argument("out_dir", type=Path, metavar="OUT_DIR", help="folder to write; made if it does not exist")
    parser.add_argument("--package-dir", help="an unpacked easy-vqa wheel, instead of the installed package")
    arguments = parser.parse_args()

    package = find_package(arguments.package_dir)
    splits = {split: read_split(package, split) for split in PUBLISHED_COUNTS}
    try:
        for split, (pictures, records) in splits.items():
            write_split(package, split, pictures, records, arguments.out_dir)
    except OSError as error:
        fail(f"cannot write {error.filename}: {error.strerror}")
    for split, (pictures, records) in splits.items():
        print(f"{arguments.out_dir / split}.jsonl: {len(records):,} questions about {len(pictures):,} pictures")


if __name__ == "__main__":
    main()
