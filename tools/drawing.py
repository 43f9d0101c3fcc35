"""What the tools that draw share: the palette, fonts, and reading JSON Lines."""

import json
import os
import sys

try:
    from PIL import ImageFont
except ImportError:
    sys.exit(f"{os.path.basename(sys.argv[0])}: Pillow is missing: apt-get install python3-pil, or pip install Pillow")

INK, FAINT = "#1d2330", "#6b7384"


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
