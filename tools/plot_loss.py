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

from drawing import FAINT, INK, font, json_lines  # which says what to install where Pillow is missing
from PIL import Image, ImageDraw

SCALE = 3  # drawn so many times larger, then reduced: Pillow's lines are not antialiased
WIDTH, PANEL, SMALL_PANEL = 1100, 460, 220
LEFT, RIGHT, TOP, BOTTOM = 84, 30, 56, 58
GRID, AXIS = "#e6e8ec", "#9aa1ad"
COLOURS = ["#1f5fbf", "#d1601f", "#238b45", "#8e3ea8", "#b8860b", "#c2285e"]
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


def round_step(span, wanted):
    rough = span / wanted
    power = 10 ** math.floor(math.log10(rough))
    return next(power * m for m in (1, 2, 2.5, 5, 10) if power * m >= rough * 0.999)


def ticks(low, high, wanted):
    step = round_step(high - low, wanted)
    return [i * step for i in range(math.ceil(low / step - 1e-9), math.floor(high / step + 1e-9) + 1)]


def log_ticks(low, high):
    powers = range(math.floor(math.log10(low)), math.ceil(math.log10(high)) + 1)
    values = [10.0**p * m for p in powers for m in (1, 2, 5)]
    return [v for v in values if low <= v <= high]


def label_of(value):
    return f"{value:,.0f}" if abs(value) >= 1000 else f"{value:.6g}"


def dotted(draw, points, colour, width):
    """A line in dashes of equal length."""
    dash, left, on = 6 * SCALE, 6 * SCALE, True
    for (x0, y0), (x1, y1) in zip(points, points[1:]):
        length, done = math.hypot(x1 - x0, y1 - y0), 0.0
        while length - done > left:
            a, b = done / length, (done + left) / length
            if on:
                draw.line((x0 + a * (x1 - x0), y0 + a * (y1 - y0), x0 + b * (x1 - x0), y0 + b * (y1 - y0)), fill=colour, width=width)
            done, left, on = done + left, dash, not on
        if on and length > done:
            a = done / length
            draw.line((x0 + a * (x1 - x0), y0 + a * (y1 - y0), x1, y1), fill=colour, width=width)
        left -= length - done


class Panel:
    """One pair of axes. All places inside are in the enlarged picture's pixels."""

    def __init__(self, draw, top, height, x_range, y_range, log=False):
        self.draw, self.log = draw, log
        self.x0, self.x1 = LEFT * SCALE, (WIDTH - RIGHT) * SCALE
        self.y0, self.y1 = top * SCALE, (top + height) * SCALE
        self.x_range = x_range if x_range[0] < x_range[1] else (x_range[0] - 1, x_range[1] + 1)
        self.y_range = y_range

    def at(self, point):
        scale = math.log if self.log else float
        low, high = scale(self.y_range[0]), scale(self.y_range[1])
        x = (point[0] - self.x_range[0]) / (self.x_range[1] - self.x_range[0])
        y = min(max((scale(point[1]) - low) / (high - low), 0), 1)
        return self.x0 + x * (self.x1 - self.x0), self.y1 - y * (self.y1 - self.y0)

    def axes(self, image, label, x_label):
        small, text = font(12 * SCALE), font(13 * SCALE)
        wanted = 8 if self.y1 - self.y0 > 300 * SCALE else 4
        for value in log_ticks(*self.y_range) if self.log else ticks(*self.y_range, wanted):
            y = self.at((self.x_range[0], value))[1]
            self.draw.line((self.x0, y, self.x1, y), fill=GRID, width=SCALE)
            self.write(label_of(value), small, self.x0 - 8 * SCALE, y, FAINT, 1, 0.5)
        for value in ticks(*self.x_range, 8):
            x = self.at((value, self.y_range[1]))[0]
            self.draw.line((x, self.y1, x, self.y1 + 5 * SCALE), fill=AXIS, width=SCALE)
            if x_label:
                self.write(label_of(value), small, x, self.y1 + 16 * SCALE, FAINT, 0.5, 0.5)
        self.draw.line((self.x0, self.y0, self.x0, self.y1, self.x1, self.y1), fill=AXIS, width=SCALE)
        if x_label:
            self.write(x_label, text, (self.x0 + self.x1) / 2, self.y1 + 38 * SCALE, INK, 0.5, 0.5)
        left, top, right, bottom = self.draw.textbbox((0, 0), label, font=text)
        upright = Image.new("RGB", (right, bottom + 4 * SCALE), "white")
        ImageDraw.Draw(upright).text((0, 0), label, font=text, fill=INK)
        upright = upright.rotate(90, expand=True)
        image.paste(upright, (14 * SCALE, int((self.y0 + self.y1 - upright.height) / 2)))

    def write(self, text, face, x, y, colour, align_x, align_y):
        left, top, right, bottom = self.draw.textbbox((0, 0), text, font=face)
        self.draw.text((x - left - align_x * (right - left), y - top - align_y * (bottom - top)), text, font=face, fill=colour)

    def line(self, points, colour, width):
        places = [self.at(p) for p in points]
        if len(places) > 1:
            self.draw.line(places, fill=colour, width=max(1, round(width * SCALE)), joint="curve")

    def dots(self, points, colour, radius=4):
        dotted(self.draw, [self.at(p) for p in points], colour, round(1.2 * SCALE))
        for x, y in map(self.at, points):
            r = radius * SCALE
            self.draw.ellipse((x - r, y - r, x + r, y + r), fill="white", outline=colour, width=round(1.8 * SCALE))

    def legend(self, entries, low=False):
        """entries: (text, colour, "line" or "dots"), in the upper or lower right corner."""
        face, row = font(12 * SCALE), 20 * SCALE
        width = max(self.draw.textlength(text, font=face) for text, _, _ in entries) + 52 * SCALE
        height = row * len(entries) + 8 * SCALE
        x, y = self.x1 - width - 6 * SCALE, self.y1 - height - 6 * SCALE if low else self.y0 + 6 * SCALE
        box = (x, y, self.x1 - 6 * SCALE, y + height)
        self.draw.rounded_rectangle(box, 5 * SCALE, fill="white", outline=GRID, width=SCALE)
        for i, (text, colour, kind) in enumerate(entries):
            middle = y + 4 * SCALE + row * (i + 0.5)
            a, b = x + 10 * SCALE, x + 36 * SCALE
            if kind == "line":
                self.draw.line((a, middle, b, middle), fill=colour, width=round(2.2 * SCALE))
            else:
                dotted(self.draw, [(a, middle), (b, middle)], colour, round(1.2 * SCALE))
                r, centre = 4 * SCALE, (a + b) / 2
                self.draw.ellipse((centre - r, middle - r, centre + r, middle + r), fill="white", outline=colour, width=round(1.8 * SCALE))
            self.write(text, face, x + 44 * SCALE, middle, INK, 0, 0.5)


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
        panel = Panel(draw, top, PANEL, x_range, loss_range(runs_with_loss, smooth, log), log)
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
        panel = Panel(draw, top, panels[-1], x_range, y_range)
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
