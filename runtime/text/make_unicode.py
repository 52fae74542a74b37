#!/usr/bin/env python3
# SPDX-License-Identifier: MIT
"""Write unicode_word.inc: the ranges of word characters, as a regular expression's \\w has them
(Unicode TS 18: Alphabetic, Mark, Decimal_Number, Connector_Punctuation, Join_Control).

    python3 make_unicode.py > unicode_word.inc

Unassigned code points between two word characters count as word characters: that halves the table,
and letters which later versions of Unicode add in such a place are right already.
"""
import unicodedata

CIRCLED = [(0x24B6, 0x24E9), (0x1F130, 0x1F149), (0x1F150, 0x1F169), (0x1F170, 0x1F189)]  # Other_Alphabetic


def kind(code):
    cat = unicodedata.category(chr(code))
    if cat in ("Cn", "Cs", "Co"):
        return None
    return (cat[0] in "LM" or cat in ("Nd", "Nl", "Pc") or code in (0x200C, 0x200D)
            or any(lo <= code <= hi for lo, hi in CIRCLED))


ranges, open_at, last = [], None, None
for code in range(0x110000):
    is_word = kind(code)
    if is_word:
        open_at = code if open_at is None else open_at
        last = code
    elif is_word is False and open_at is not None:
        ranges.append((open_at, last))
        open_at = None
if open_at is not None:
    ranges.append((open_at, last))
print("/* SPDX-License-Identifier: MIT */")
print("/* Written by make_unicode.py from Unicode %s: do not edit. */" % unicodedata.unidata_version)
line = ""
for lo, hi in ranges:
    item = "{0x%x, 0x%x}, " % (lo, hi)
    if len(line) + len(item) > 100:
        print(line.rstrip())
        line = ""
    line += item
print(line.rstrip())
