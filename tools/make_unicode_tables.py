#!/usr/bin/env python3
"""Writes data/unicode_tables.cpp: the character classes that data/unicode.h serves.

    pip install unicodedata2==16.0.0
    tools/make_unicode_tables.py > data/unicode_tables.cpp

The version of Unicode is part of the result: Hugging Face tokenizers 0.21 classifies by 16.0, and a character that
changes class changes token ids.
"""

import sys

import unicodedata2 as unicodedata

VERSION = "16.0.0"
LETTER, NUMBER, SPACE, WORD = 1, 2, 4, 8

# White_Space of PropList.txt: what separators leave out are the control characters 9-13 and 0x85.
CONTROL_SPACES = {*range(0x09, 0x0E), 0x85}
# \w holds the property Alphabetic, of which the general category misses only these enclosed letters, and Join_Control.
ENCLOSED_LETTERS = {*range(0x24B6, 0x24EA), *range(0x1F130, 0x1F14A), *range(0x1F150, 0x1F16A), *range(0x1F170, 0x1F18A)}
JOIN_CONTROL = {0x200C, 0x200D}


def classes_of(code):
    category = unicodedata.category(chr(code))
    result = 0
    if category[0] == "L":
        result |= LETTER
    if category[0] == "N":
        result |= NUMBER
    if category[0] == "Z" or code in CONTROL_SPACES:
        result |= SPACE
    if category[0] in "LM" or category in ("Nd", "Nl", "Pc") or code in ENCLOSED_LETTERS | JOIN_CONTROL:
        result |= WORD
    return result


def ranges():
    first, current = 0, classes_of(0)
    for code in range(1, sys.maxunicode + 2):
        classes = classes_of(code) if code <= sys.maxunicode else None
        if classes != current:
            if current:
                yield first, code - 1, current
            first, current = code, classes


def main():
    assert unicodedata.unidata_version == VERSION, f"expected Unicode {VERSION}, found {unicodedata.unidata_version}"
    rows = [f"{{{first:#x}, {last:#x}, {classes}}}" for first, last, classes in ranges()]
    print(f"// Character classes of Unicode {VERSION}, written by tools/make_unicode_tables.py. Not to be edited by hand.")
    print('#include "data/unicode.h"\n\nnamespace nanovlm {\n')
    print("// clang-format off")
    print("const ClassRange kClassRanges[] = {")
    for i in range(0, len(rows), 5):
        print("    " + ", ".join(rows[i : i + 5]) + ",")
    print("};")
    print("// clang-format on")
    print(f"const int kClassRangeCount = {len(rows)};")
    print("\n}  // namespace nanovlm")


main()
