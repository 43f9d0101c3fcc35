#!/usr/bin/env python3
"""Plots what kernel benches measured against a size: a row of panels a direction and dtype, a line an implementation.

    plot_bench.py REPORT.json... OUT.png [--x seq] [--y tflops,pct_floor] [--title TEXT]

Each REPORT.json is what a bench wrote with --json, where --x is a column with several sizes:

    build/release/bench/attention --seq 64,128,256,512 --json seq.json && tools/plot_bench.py seq.json seq.png

By default --y is tflops,pct_floor of timings and h100_us,h200_us of simt's bounds, whose operations alone are drawn.
Several reports are told apart by their file names. Needs Pillow (Debian: python3-pil, fonts-dejavu-core).
Exit codes: 0 done, 1 failed, 2 bad usage.
"""

import argparse
import json
import os

from drawing import COLOURS, INK, SCALE, Panel, font  # which says what to install where Pillow is missing
from PIL import Image, ImageDraw

WIDTH, HEIGHT = 520, 300  # of a panel
LEFT, RIGHT, TOP, BETWEEN = 92, 24, 64, 84
LABELS = {"tflops": "TFLOP/s", "pct_floor": "% of the floor", "h100_us": "H100, us at least", "h200_us": "H200, us at least"}


def read(path):
    """The rows of a report; of simt's, the operations' rows."""
    with open(path, encoding="utf-8") as file:
        document = json.load(file)
    rows = document.get("rows") if isinstance(document, dict) else None
    if not isinstance(rows, list) or not all(isinstance(row, dict) for row in rows):
        raise SystemExit(f"plot_bench.py: {path}: expected a bench's --json with a list 'rows'")
    operations = [row for row in rows if str(row.get("kernel", "")).startswith("= ")]
    return operations or rows


def name_of(row, file):
    name = row["kernel"][2:] if "kernel" in row else row.get("impl", "?")
    return f"{name}, {file}" if file else name


def series_of(reports, x, y):
    """{(dir, dtype): {name: [(x, y), ...]}}, in the order of the reports."""
    groups = {}
    for file, rows in reports:
        for row in rows:
            if isinstance(row.get(x), (int, float)) and isinstance(row.get(y), (int, float)):
                group = groups.setdefault((row.get("dir", ""), row.get("dtype", "")), {})
                group.setdefault(name_of(row, file), {})[row[x]] = row[y]
    return {key: {name: sorted(points.items()) for name, points in group.items()} for key, group in groups.items()}


def limits(values, log):
    low, high = min(values), max(values)
    if log:
        return low / 1.2, high * 1.2
    return 0, high * 1.15 or 1


def along(lines):
    """Points all along the lines, by which a legend finds where it hides none of them."""
    points = [line[0] for line in lines]
    for line in lines:
        for (x0, y0), (x1, y1) in zip(line, line[1:]):
            points += [(x0 + (x1 - x0) * i / 50, y0 + (y1 - y0) * i / 50) for i in range(51)]
    return points


def plot(reports, x, ys, title):
    by_y = {y: series_of(reports, x, y) for y in ys}
    groups = list(dict.fromkeys(key for series in by_y.values() for key in series))
    names = list(dict.fromkeys(name for series in by_y.values() for group in series.values() for name in group))
    if not groups:
        raise SystemExit(f"plot_bench.py: expected rows with {x} and any of {', '.join(ys)}, found none")
    if len(names) > len(COLOURS):
        raise SystemExit(f"plot_bench.py: at most {len(COLOURS)} lines can be told apart, found {len(names)}: {', '.join(names)}")
    size = len(ys) * (LEFT + WIDTH) + RIGHT, TOP + len(groups) * (HEIGHT + BETWEEN)
    image = Image.new("RGB", (size[0] * SCALE, size[1] * SCALE), "white")
    draw = ImageDraw.Draw(image)
    draw.text((LEFT * SCALE, 14 * SCALE), title, font=font(17 * SCALE, True), fill=INK)
    sizes = sorted({place for series in by_y.values() for group in series.values() for line in group.values() for place, _ in line})
    colours = dict(zip(names, COLOURS))
    for row, key in enumerate(groups):
        for column, y in enumerate(ys):
            lines = by_y[y].get(key, {})
            if not lines:
                continue
            log = y.endswith("_us") or y.startswith("us_")
            box = LEFT + column * (LEFT + WIDTH), TOP + row * (HEIGHT + BETWEEN), WIDTH - LEFT // 2, HEIGHT
            values = [value for line in lines.values() for _, value in line]
            panel = Panel(draw, box, (sizes[0], sizes[-1]), limits(values, log), log_x=sizes[0] > 0, log_y=log)
            panel.axes(image, LABELS.get(y, y), f"{x}   ({' '.join(key)})", sizes)
            for name, line in lines.items():
                panel.line(line, colours[name], 2.0)
                panel.dots(line, colours[name], 3)
            panel.legend([(name, colours[name], "line") for name in lines], beside=along(lines.values()))
    return image.resize(size, Image.LANCZOS)


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("reports", metavar="REPORT.json", nargs="+")
    parser.add_argument("out", metavar="OUT.png")
    parser.add_argument("--x", default="seq", help="column along the panels")
    parser.add_argument("--y", help="columns, a panel each")
    parser.add_argument("--title")
    args = parser.parse_args()
    try:
        many = len(args.reports) > 1
        reports = [(os.path.basename(path) if many else "", read(path)) for path in args.reports]
        timed = any("us_p50" in row for _, rows in reports for row in rows)
        ys = (args.y or ("tflops,pct_floor" if timed else "h100_us,h200_us")).split(",")
        plot(reports, args.x, ys, args.title or ", ".join(map(os.path.basename, args.reports))).save(args.out)
    except OSError as error:
        raise SystemExit(f"plot_bench.py: {error}")
    except ValueError as error:  # no JSON, or a file name without a known ending
        raise SystemExit(f"plot_bench.py: {' '.join(args.reports)} -> {args.out}: {error}")


if __name__ == "__main__":
    main()
