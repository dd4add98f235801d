"""Here-documents of RUN, COPY and ADD: the `<<WORD` of a line, and the lines that follow it."""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass

from converter.dockerfile.expand import ExpansionError, split_heredoc_word, split_raw

_MARK = re.compile(r"([0-9]*)<<(-?)([^<]*)")
_LEADING_TABS = re.compile(r"^\t+", re.MULTILINE)


@dataclass(frozen=True)
class Mark:
    """`<<NAME` as it is announced; its content follows the line."""

    name: str
    expands: bool
    strips_tabs: bool
    descriptor: int


def parse_mark(word: str) -> Mark | None:
    """Read one word as `[N]<<[-]NAME`; None when it is none. Raises ExpansionError for unbalanced quotes."""
    match = _MARK.fullmatch(word)
    if match is None or not match[3]:
        return None
    bare = split_heredoc_word(match[3], raw_quotes=False)
    if len(bare) != 1:
        return None
    raw = split_heredoc_word(match[3], raw_quotes=True)
    if len(raw) != 1:
        raise ExpansionError(f"the here-document's name {match[3]} has spaces that are not quoted")
    # Any part of the word quoted: the content is taken as it is.
    expands = _quotes(bare[0]) == _quotes(raw[0])
    return Mark(bare[0], expands, bool(match[2]), int(match[1] or "0"))


def find_mark(word: str) -> Mark | None:
    """As parse_mark, but a word with unbalanced quotes is just no mark."""
    try:
        return parse_mark(word)
    except ExpansionError:
        return None


def find_marks(line: str) -> list[Mark]:
    """The here-documents that a line announces, in their order. Raises ExpansionError."""
    if "<<" not in line:
        return []
    try:
        words = split_raw(line, raw=True)
    except ExpansionError:  # quotes that the shell will complain about
        return []
    return [mark for word in words if "<<" in word and (mark := parse_mark(word))]


def take(lines: Sequence[str], index: int, mark: Mark) -> tuple[str, int] | None:
    """The content that begins at lines[index], and the index of the line after its end; None: it has no end."""
    for at in range(index, len(lines)):
        line = lines[at].rstrip("\r\n")
        if (line.lstrip("\t") if mark.strips_tabs else line) == mark.name:
            return "".join(lines[index:at]), at + 1
    return None


def strip_tabs(content: str) -> str:
    """What `<<-` does to the content."""
    return _LEADING_TABS.sub("", content)


def _quotes(word: str) -> int:
    return word.count("'") + word.count('"')
