"""A list as text: `SOURCE [NAME]` on a line."""

from __future__ import annotations

import re
from collections.abc import Iterator

from converter.batch.entry import Entry, Place, Setting, UsageError

_SPACE = re.compile(r"[ \t]*")
_WORD = re.compile(r"[^ \t]+")


def read_text(file: str, text: str) -> Iterator[Entry]:
    """The machines of a list, a line each; `file` is its name in messages.

    `#` begins a comment at a line's start and after white space; a word with spaces stands in single or double quotes,
    between which every character means itself. Raises UsageError.
    """
    for number, line in enumerate(text.split("\n"), 1):
        words = list(_words(line.removesuffix("\r"), file, number))
        if len(words) > 2:
            what = "a line takes a source and a name, no more"
            raise UsageError(words[2][0], what, "quote a word that has spaces; options take a list in YAML")
        if words:
            place, source = words[0]
            settings = {}
            for where, name in words[1:]:
                settings["name"] = Setting(name, where)
            yield Entry(place.short, source, settings)


def _words(line: str, file: str, number: int) -> Iterator[tuple[Place, str]]:
    position = 0
    while match := _SPACE.match(line, position):
        start = match.end()
        if start == len(line) or line[start] == "#":
            return
        place = Place(file, number, start + 1)
        if (quote := line[start]) in "\"'":
            end = line.find(quote, start + 1)
            if end < 0:
                raise UsageError(place, f"this {quote} has no other one that ends the word")
            word, position = line[start + 1 : end], end + 1
            if line[position : position + 1].strip(" \t"):
                raise UsageError(
                    Place(file, number, position + 1), f"after the {quote} there must be a space"
                )
            if not word:
                raise UsageError(place, "there is nothing between the quotes")
        else:
            plain = _WORD.match(line, start)
            assert plain is not None
            word, position = plain[0], plain.end()
        yield place, word
