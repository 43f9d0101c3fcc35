#!/usr/bin/env python3
"""Writes a Parquet data set in the_cauldron's schema, of any size: to try a reader, a disk or a training run on.

    make_parquet.py OUT_FOLDER --gb 10 [--file-gb 0.5] [--picture FILE ...] [--rows-per-group 100] [--codec snappy]

Every row has one picture (the given files in turn, each with a comment of its own so that no two rows hold the same
bytes; without --picture, noise of --picture-kb) and one to three turns. Files are named train-00000-of-00020.parquet, as
Hugging Face publishes them. Needs pyarrow (scripts/setup.sh installs it into .venv).
Exit codes: 0 done, 1 failed, 2 bad usage.
"""

import argparse
import os
import random
import sys

try:
    import pyarrow as pa
    import pyarrow.parquet as pq
except ImportError:
    sys.exit("make_parquet.py: pyarrow is missing: run scripts/setup.sh, then .venv/bin/python tools/make_parquet.py ...")

PICTURE = pa.struct([("bytes", pa.binary()), ("path", pa.string())])
TURN = pa.struct([("user", pa.string()), ("assistant", pa.string()), ("source", pa.string())])
SCHEMA = pa.schema([("images", pa.list_(PICTURE)), ("texts", pa.list_(TURN))])


def numbered(picture, row):
    """The same picture in other bytes: a JPEG comment right behind the start mark; other formats get bytes at the end."""
    comment = row.to_bytes(8, "big")
    if picture[:2] == b"\xff\xd8":
        return picture[:2] + b"\xff\xfe\x00\x0a" + comment + picture[2:]
    return picture + comment


def record(row, pictures, noise_bytes):
    chance = random.Random(row)
    picture = numbered(pictures[row % len(pictures)], row) if pictures else chance.randbytes(noise_bytes)
    turns = [
        {"user": f"What is number {turn} of picture {row}?", "assistant": f"Row {row}, turn {turn}.", "source": "made"}
        for turn in range(chance.randint(1, 3))
    ]
    return {"images": [{"bytes": picture, "path": None}], "texts": turns}


def write_file(path, rows, arguments, pictures):
    options = {"compression": arguments.codec}
    if arguments.content_chunks:
        options.update(use_content_defined_chunking=True, write_page_index=True)
    if arguments.data_page_version:
        options["data_page_version"] = arguments.data_page_version
    with pq.ParquetWriter(path + ".tmp", SCHEMA, **options) as writer:
        for begin in range(rows.start, rows.stop, arguments.rows_per_group):
            group = range(begin, min(begin + arguments.rows_per_group, rows.stop))
            records = [record(row, pictures, int(arguments.picture_kb * 1024)) for row in group]
            writer.write_table(pa.Table.from_pylist(records, SCHEMA), row_group_size=len(records))
    os.replace(path + ".tmp", path)


def parse_arguments():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("out", metavar="OUT_FOLDER")
    parser.add_argument("--gb", type=float, default=1, help="of pictures, all files together")
    parser.add_argument("--file-gb", type=float, default=0.5, help="of one file")
    parser.add_argument("--picture", nargs="+", default=[], metavar="FILE")
    parser.add_argument("--picture-kb", type=float, default=100, help="of the noise that stands for a picture")
    parser.add_argument("--rows-per-group", type=int, default=100)
    parser.add_argument("--codec", choices=["snappy", "zstd", "gzip", "none"], default="snappy")
    parser.add_argument(
        "--content-chunks", action="store_true", help="pages cut by content, with an index: as newer `datasets` write"
    )
    parser.add_argument("--data-page-version", choices=["1.0", "2.0"])
    arguments = parser.parse_args()
    if min(arguments.gb, arguments.file_gb, arguments.picture_kb, arguments.rows_per_group) <= 0:
        parser.error("expected positive sizes")
    return arguments


def main():
    arguments = parse_arguments()
    try:
        pictures = []
        for name in arguments.picture:
            with open(name, "rb") as file:
                pictures.append(file.read())
        row_bytes = sum(map(len, pictures)) / len(pictures) if pictures else arguments.picture_kb * 1024
        rows = max(1, round(arguments.gb * 1e9 / row_bytes))
        files = max(1, round(arguments.gb / arguments.file_gb))
        os.makedirs(arguments.out, exist_ok=True)
        for i in range(files):
            part = range(rows * i // files, rows * (i + 1) // files)
            path = os.path.join(arguments.out, f"train-{i:05}-of-{files:05}.parquet")
            write_file(path, part, arguments, pictures)
            print(f"{path}: {len(part)} rows, {os.path.getsize(path):,} bytes", file=sys.stderr)
    except OSError as error:
        sys.exit(f"make_parquet.py: {error}")


if __name__ == "__main__":
    main()
