#!/usr/bin/env python3
"""Draws a contact sheet of answered questions: picture, question, prediction (green if right, red if wrong), answer.
(Samples to be learnt are drawn by `inspect data --sheet FILE.png`.)

    contact_sheet.py RESULTS.jsonl OUT.png [--count 48] [--columns 6] [--images FOLDER] [--title TEXT]

Each line of RESULTS.jsonl is an object with "image" (a path; relative ones start at --images, by default the folder of
RESULTS.jsonl), "question", "prediction" and "answer". A line may say "correct": true or false; otherwise a prediction
is right if it equals the answer apart from case, blanks and a final full stop. Needs Pillow (Debian: python3-pil,
fonts-dejavu-core). Exit codes: 0 done, 1 failed, 2 bad usage.
"""

import argparse
import os

from drawing import FAINT, INK, font, json_lines  # which says what to install where Pillow is missing
from PIL import Image, ImageDraw, ImageOps

BACKGROUND, CARD, BORDER = "#eef0f3", "#ffffff", "#d5d9e0"
GREEN, RED = "#12803c", "#c4262e"
PICTURE, PADDING, GAP, MARGIN = 220, 12, 16, 24  # pixels
QUESTION_LINES, ANSWER_LINES = 4, 2
LABEL = 44  # room for "truth" before an answer


class Sheet:
    def __init__(self):
        self.text, self.bold, self.small, self.title = font(14), font(14, True), font(12), font(22, True)
        self.line = 19
        self.measure = ImageDraw.Draw(Image.new("RGB", (1, 1)))
        self.card_width = PICTURE + 2 * PADDING

    def width(self, text, face):
        return self.measure.textlength(text, font=face)

    def cut(self, text, face, room):
        """The longest start of text that fits, with an ellipsis if it is not all of it."""
        if self.width(text, face) <= room:
            return text
        while text and self.width(text + "…", face) > room:
            text = text[:-1]
        return text + "…"

    def wrap(self, text, face, room, lines):
        """Text in at most so many lines; a word longer than a line is broken."""
        out, rest = [], " ".join(str(text).split())
        while rest and len(out) < lines - 1:
            end = len(rest)
            while end > 1 and self.width(rest[:end], face) > room:
                space = rest.rfind(" ", 0, end)
                end = space if space > 0 else end - 1
            out.append(rest[:end])
            rest = rest[end:].lstrip()
        return out + ([self.cut(rest, face, room)] if rest else [])

    def picture(self, path):
        try:
            with Image.open(path) as image:
                return ImageOps.pad(image.convert("RGB"), (PICTURE, PICTURE), color="#f6f7f9")
        except (OSError, ValueError, Image.DecompressionBombError):
            missing = Image.new("RGB", (PICTURE, PICTURE), "#f6f7f9")
            draw = ImageDraw.Draw(missing)
            for i, line in enumerate(["no picture:", *self.wrap(os.path.basename(path), self.small, PICTURE - 20, 3)]):
                draw.text((10, 90 + 16 * i), line, font=self.small, fill=FAINT)
            return missing

    def texts(self, record):
        """The wrapped question, prediction and answer."""
        return (
            self.wrap(record["question"], self.text, PICTURE, QUESTION_LINES),
            self.wrap(record["prediction"], self.bold, PICTURE - LABEL, ANSWER_LINES) or ["–"],
            self.wrap(record["answer"], self.text, PICTURE - LABEL, ANSWER_LINES) or ["–"],
        )

    def height(self, record):
        return PICTURE + 3 * PADDING + self.line * sum(map(len, self.texts(record))) + 11

    def labelled(self, draw, x, y, label, lines, face, colour, label_colour):
        draw.text((x, y + 1), label, font=self.small, fill=label_colour)
        for line in lines:
            draw.text((x + LABEL, y), line, font=face, fill=colour)
            y += self.line
        return y

    def card(self, draw, sheet, x, y, height, record):
        draw.rounded_rectangle((x, y, x + self.card_width, y + height), 8, fill=CARD, outline=BORDER)
        x, y = x + PADDING, y + PADDING
        sheet.paste(self.picture(record["image"]), (x, y))
        y += PICTURE + PADDING
        question, prediction, answer = self.texts(record)
        for line in question:
            draw.text((x, y), line, font=self.text, fill=INK)
            y += self.line
        draw.line((x, y + 5, x + PICTURE, y + 5), fill=BORDER)
        colour, mark = (GREEN, "✓") if record["correct"] else (RED, "✗")
        y = self.labelled(draw, x, y + 11, mark, prediction, self.bold, colour, colour)
        self.labelled(draw, x, y, "truth", answer, self.text, INK, FAINT)

    def draw(self, records, columns, title, total):
        columns = min(columns, len(records))
        rows = [records[i : i + columns] for i in range(0, len(records), columns)]
        heights = [max(map(self.height, row)) for row in rows]
        head = 56
        width = 2 * MARGIN + columns * self.card_width + (columns - 1) * GAP
        sheet = Image.new("RGB", (width, head + sum(heights) + GAP * (len(rows) - 1) + MARGIN), BACKGROUND)
        draw = ImageDraw.Draw(sheet)
        right = sum(r["correct"] for r in records)
        summary = f"{right} of {len(records)} right"
        summary += f", the first of {total:,}" if total > len(records) else ""
        room = self.width(summary, self.text)
        draw.text((MARGIN, 18), self.cut(title, self.title, width - 3 * MARGIN - room), font=self.title, fill=INK)
        draw.text((width - MARGIN - room, 24), summary, font=self.text, fill=FAINT)
        y = head
        for row, height in zip(rows, heights):
            for i, record in enumerate(row):
                self.card(draw, sheet, MARGIN + i * (self.card_width + GAP), y, height, record)
            y += height + GAP
        return sheet


def normal(text):
    return " ".join(str(text).lower().split()).rstrip(".")


def read(path, images):
    records = []
    for where, record in json_lines(path):
        missing = [key for key in ("image", "question", "prediction", "answer") if key not in record]
        if missing:
            raise SystemExit(f"{where}: expected a key {missing[0]!r}, found {sorted(record)}")
        record["correct"] = bool(record.get("correct", normal(record["prediction"]) == normal(record["answer"])))
        records.append({**record, "image": os.path.join(images, str(record["image"]))})
    return records


def positive(text):
    value = int(text)
    if value < 1:
        raise argparse.ArgumentTypeError(f"{text} is not positive")
    return value


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("results", metavar="RESULTS.jsonl")
    parser.add_argument("out", metavar="OUT.png")
    parser.add_argument("--count", type=positive, default=48, help="at most so many records, the first ones")
    parser.add_argument("--columns", type=positive, default=6)
    parser.add_argument("--images", metavar="FOLDER", help="where relative picture paths start")
    parser.add_argument("--title", help="default: the file's name")
    args = parser.parse_args()
    try:
        records = read(args.results, args.images or os.path.dirname(args.results))
        if not records:
            raise SystemExit(f"contact_sheet.py: {args.results}: expected at least one record, found none")
        title = args.title or os.path.basename(args.results)
        Sheet().draw(records[: args.count], args.columns, title, len(records)).save(args.out)
    except OSError as error:
        raise SystemExit(f"contact_sheet.py: {error}")
    except ValueError as error:  # a file name without a known ending, or text that is no UTF-8
        raise SystemExit(f"contact_sheet.py: {args.results} -> {args.out}: {error}")


if __name__ == "__main__":
    main()
