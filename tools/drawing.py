"""What the tools that draw share: the palette, fonts, axes, and reading JSON Lines."""

import json
import math
import os
import sys

try:
    from PIL import Image, ImageDraw, ImageFont
except ImportError:
    sys.exit(f"{os.path.basename(sys.argv[0])}: Pillow is missing: apt-get install python3-pil, or pip install Pillow")

INK, FAINT = "#1d2330", "#6b7384"
SCALE = 3  # drawn so many times larger, then reduced: Pillow's lines are not antialiased
GRID, AXIS = "#e6e8ec", "#9aa1ad"
COLOURS = ["#1f5fbf", "#d1601f", "#238b45", "#8e3ea8", "#b8860b", "#c2285e"]


def font(size, bold=False):
    name = "DejaVuSans-Bold.ttf" if bold else "DejaVuSans.ttf"
    for path in (name, f"/usr/share/fonts/truetype/dejavu/{name}"):
        try:
            return ImageFont.truetype(path, size)
        except OSError:
            pass
    return ImageFont.load_default()


def json_lines(path):
    """(where, object) of every line that is not blank; `where` names file and line. Ends the program at any other."""
    program = os.path.basename(sys.argv[0])
    with open(path, encoding="utf-8") as lines:
        for number, line in enumerate(lines, 1):
            where = f"{program}: {path}:{number}"
            if not line.strip():
                continue
            try:
                record = json.loads(line)
            except ValueError as error:
                sys.exit(f"{where}: expected a JSON object: {error}")
            if not isinstance(record, dict):
                sys.exit(f"{where}: expected a JSON object, found {line.strip()[:60]}")
            yield where, record


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
    """One pair of axes in a box (left, top, width, height). All places inside are in the enlarged picture's pixels."""

    def __init__(self, draw, box, x_range, y_range, log_x=False, log_y=False):
        self.draw, self.log_x, self.log_y = draw, log_x, log_y
        left, top, width, height = (SCALE * size for size in box)
        self.x0, self.x1, self.y0, self.y1 = left, left + width, top, top + height
        around = (x_range[0] / 2, x_range[1] * 2) if log_x else (x_range[0] - 1, x_range[1] + 1)
        self.x_range = x_range if x_range[0] < x_range[1] else around
        self.y_range = y_range

    def at(self, point):
        def part(value, limits, log):
            low, high, value = (math.log(v) if log else v for v in (*limits, value))
            return (value - low) / (high - low)

        x, y = part(point[0], self.x_range, self.log_x), min(max(part(point[1], self.y_range, self.log_y), 0), 1)
        return self.x0 + x * (self.x1 - self.x0), self.y1 - y * (self.y1 - self.y0)

    def axes(self, image, label, x_label, x_ticks=None):
        small, text = font(12 * SCALE), font(13 * SCALE)
        wanted = 8 if self.y1 - self.y0 > 300 * SCALE else 4
        for value in log_ticks(*self.y_range) if self.log_y else ticks(*self.y_range, wanted):
            y = self.at((self.x_range[0], value))[1]
            self.draw.line((self.x0, y, self.x1, y), fill=GRID, width=SCALE)
            self.write(label_of(value), small, self.x0 - 8 * SCALE, y, FAINT, 1, 0.5)
        for value in ticks(*self.x_range, 8) if x_ticks is None else x_ticks:
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
        image.paste(upright, (int(self.x0) - 70 * SCALE, int((self.y0 + self.y1 - upright.height) / 2)))

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

    def legend(self, entries, low=False, beside=()):
        """entries: (text, colour, "line" or "dots"), in the upper or lower right corner, or in the one where the fewest
        of the points `beside` lie."""
        face, row = font(12 * SCALE), 20 * SCALE
        width = max(self.draw.textlength(text, font=face) for text, _, _ in entries) + 52 * SCALE
        height = row * len(entries) + 8 * SCALE
        gap = 6 * SCALE
        corners = [(x, y) for x in (self.x1 - width - gap, self.x0 + gap) for y in (self.y0 + gap, self.y1 - height - gap)]
        places = [self.at(point) for point in beside]
        hidden = [sum(x <= px <= x + width and y <= py <= y + height for px, py in places) for x, y in corners]
        x, y = corners[hidden.index(min(hidden))] if beside else corners[low]
        box = (x, y, x + width, y + height)
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
