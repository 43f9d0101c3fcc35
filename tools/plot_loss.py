#!/usr/bin/env python3
"""Plots training runs: the loss of every step (faint), its running mean, validation loss; accuracy below if there is any.

    plot_loss.py METRICS.jsonl... OUT.png [--smooth 0.95] [--log] [--title TEXT]

Each line of METRICS.jsonl is an object with "step" and any of "batch_loss", "val_loss" and "accuracy"; other keys are
left alone. Each file is a run, named by its folder. Needs Pillow (Debian: python3-pil, fonts-dejavu-core).
Exit codes: 0 done, 1 failed, 2 bad usage.
"""

import argparse
import math
import os

from drawing import COLOURS, INK, SCALE, Panel, font, json_lines  # which says what to install where Pillow is missing
from PIL import Image, ImageDraw

WIDTH, PANEL, SMALL_PANEL = 1100, 460, 220
LEFT, RIGHT, TOP, BOTTOM = 84, 30, 56, 58
KEYS = ("batch_loss", "val_loss", "accuracy")


def mixed(colour, share):
    """The colour with white: share 0 is white."""
    parts = [int(colour[i : i + 2], 16) for i in (1, 3, 5)]
    return "#" + "".join(f"{round(255 + (p - 255) * share):02x}" for p in parts)


def read(path):
    """{key: [(step, value), ...]} in order of steps; where a resumed run repeats a step, the later line counts."""
    points = {key: {} for key in KEYS}
    for where, record in json_lines(path):
        for key in KEYS:
            value, step = record.get(key), record.get("step")
            if value is None:
                continue
            if not isinstance(step, (int, float)) or not isinstance(value, (int, float)):
                raise SystemExit(f"{where}: expected numbers, found step {step!r} and {key} {value!r}")
            if math.isfinite(value):
                points[key][step] = value
    return {key: sorted(values.items()) for key, values in points.items()}


def running_mean(points, keep):
    """Exponential, corrected for its start: the first value is the first point."""
    out, mean, weight = [], 0.0, 0.0
    for step, value in points:
        mean, weight = keep * mean + (1 - keep) * value, keep * weight + 1 - keep
        out.append((step, mean / weight))
    return out


def loss_range(runs, smooth, log):
    """Everything but rare spikes: all means and validation points, and 99.5 % of the single steps."""
    shown = [v for run in runs for _, v in running_mean(run["batch_loss"], smooth) + run["val_loss"]]
    single = sorted(v for run in runs for _, v in run["batch_loss"])
    if single:
        shown += [single[0], single[min(len(single) - 1, int(len(single) * 0.995))]]
    low, high = min(shown), max(shown)
    if log:
        positive = [v for v in shown if v > 0]
        return (min(positive) / 1.1, max(positive) * 1.1) if positive else (0.1, 1)
    room = (high - low or abs(high) or 1) * 0.05
    return (max(0, low - room) if low >= 0 else low - room), high + room


def panel_at(draw, top, height, x_range, y_range, log=False):
    return Panel(draw, (LEFT, top, WIDTH - LEFT - RIGHT, height), x_range, y_range, log_y=log)


def plot(runs, names, smooth, log, title):
    runs_with_loss = [r for r in runs if r["batch_loss"] or r["val_loss"]]
    accuracies = [v for r in runs for _, v in r["accuracy"]]
    panels = [PANEL] * bool(runs_with_loss) + [SMALL_PANEL if runs_with_loss else PANEL] * bool(accuracies)
    height = TOP + sum(panels) + 34 * (len(panels) - 1) + BOTTOM
    image = Image.new("RGB", (WIDTH * SCALE, height * SCALE), "white")
    draw = ImageDraw.Draw(image)
    draw.text((LEFT * SCALE, 16 * SCALE), title, font=font(17 * SCALE, True), fill=INK)
    steps = [step for run in runs for key in KEYS for step, _ in run[key]]
    x_range, top, many = (min(steps), max(steps)), TOP, len(runs) > 1

    if runs_with_loss:
        panel = panel_at(draw, top, PANEL, x_range, loss_range(runs_with_loss, smooth, log), log)
        panel.axes(image, "loss", "" if accuracies else "step")
        for run, colour in zip(runs, COLOURS):
            panel.line([p for p in run["batch_loss"] if not log or p[1] > 0], mixed(colour, 0.25), 0.8)
        legend = []
        for run, name, colour in zip(runs, names, COLOURS):
            suffix = f", {name}" if many else ""
            if run["batch_loss"]:
                panel.line([p for p in running_mean(run["batch_loss"], smooth) if not log or p[1] > 0], colour, 2.2)
                legend += [(f"training (running mean){suffix}", colour, "line")]
                legend += [] if many else [("training (each step)", mixed(colour, 0.4), "line")]
            if run["val_loss"]:
                dark = colour if many else COLOURS[1]
                panel.dots([p for p in run["val_loss"] if not log or p[1] > 0], dark)
                legend += [(f"validation{suffix}", dark, "dots")]
        panel.legend(legend)
        top += PANEL + 34
    if accuracies:
        room = (max(accuracies) - min(accuracies) or 0.1) * 0.08
        y_range = max(0, min(accuracies) - room), max(accuracies) + room
        panel = panel_at(draw, top, panels[-1], x_range, y_range)
        panel.axes(image, "accuracy", "step")
        for run, colour in zip(runs, COLOURS):
            panel.dots(run["accuracy"], colour if many else COLOURS[2])
        if many:
            panel.legend([(n, c, "dots") for r, n, c in zip(runs, names, COLOURS) if r["accuracy"]], low=True)
    return image.resize((WIDTH, height), Image.LANCZOS)


def names_of(paths):
    """The folder of each run; the whole path where that does not tell them apart."""
    folders = [os.path.basename(os.path.dirname(os.path.abspath(p))) for p in paths]
    return folders if len(set(folders)) == len(folders) else list(paths)


def share(text):
    value = float(text)
    if not 0 <= value < 1:
        raise argparse.ArgumentTypeError(f"{text} is not in [0, 1)")
    return value


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("metrics", metavar="METRICS.jsonl", nargs="+")
    parser.add_argument("out", metavar="OUT.png")
    parser.add_argument("--smooth", type=share, default=0.95, help="share of the mean that a step keeps")
    parser.add_argument("--log", action="store_true", help="logarithmic loss axis")
    parser.add_argument("--title", default="Training")
    args = parser.parse_args()
    if len(args.metrics) > len(COLOURS):
        parser.error(f"at most {len(COLOURS)} runs can be told apart, found {len(args.metrics)}")
    try:
        runs = [read(path) for path in args.metrics]
        for path, run in zip(args.metrics, runs):
            if not any(run.values()):
                raise SystemExit(f"plot_loss.py: {path}: expected a line with one of {', '.join(KEYS)}, found none")
        plot(runs, names_of(args.metrics), args.smooth, args.log, args.title).save(args.out)
    except OSError as error:
        raise SystemExit(f"plot_loss.py: {error}")
    except ValueError as error:  # a file name without a known ending, or text that is no UTF-8
        raise SystemExit(f"plot_loss.py: {' '.join(args.metrics)} -> {args.out}: {error}")


if __name__ == "__main__":
    main()
