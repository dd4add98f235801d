"""Patterns of names as Go's filepath.Match has them: `*`, `?`, `[a-z]`, `[^a]` and `\\x`.

https://pkg.go.dev/path/filepath#Match. COPY's sources and .dockerignore are such patterns.
"""

from __future__ import annotations

import re
from functools import lru_cache


class BadPattern(ValueError):
    """The pattern is malformed; `at` is the place in it where that shows, from 0."""

    def __init__(self, pattern: str, at: int) -> None:
        super().__init__(f"malformed pattern {pattern!r}")
        self.at = at


def has_wildcards(text: str) -> bool:
    """Is there an `*`, `?` or `[` in it that is not escaped?"""
    return re.search(r"[*?\[]", re.sub(r"\\.", "", text, flags=re.DOTALL)) is not None


def matches(pattern: str, name: str) -> bool:
    """Does the pattern match all of the name? Raises BadPattern."""
    return compile_pattern(pattern).fullmatch(name) is not None


@lru_cache(maxsize=1024)
def compile_pattern(pattern: str) -> re.Pattern[str]:
    """The pattern as a regular expression for fullmatch. Raises BadPattern."""
    parts: list[str] = []
    at = 0
    is_open = False
    while at < len(pattern):
        char = pattern[at]
        if char == "*":
            while pattern[at : at + 1] == "*":
                at += 1
            # As in Go, what stands before the last `*` is taken where it first fits, and no other place is tried.
            parts.append(")(?>[^/]*?" if is_open else "(?>[^/]*?")
            is_open = True
        elif char == "?":
            parts.append("[^/]")
            at += 1
        elif char == "[":
            part, at = _class(pattern, at)
            parts.append(part)
        else:
            char, at = _literal(pattern, at)
            parts.append(re.escape(char))
    if is_open:
        last = max(number for number, part in enumerate(parts) if part.endswith("(?>[^/]*?"))
        parts[last] = parts[last].removesuffix("(?>[^/]*?") + "(?:[^/]*"
        parts.append(")")
    return re.compile("".join(parts), re.DOTALL)


def _literal(pattern: str, at: int) -> tuple[str, int]:
    """One character, perhaps escaped, and the place after it."""
    start = at
    if pattern[at] == "\\":
        at += 1
        if at == len(pattern):
            raise BadPattern(pattern, start)
    return pattern[at], at + 1


def _class(pattern: str, start: int) -> tuple[str, int]:
    """`[…]` as a regular expression, and the place after it."""
    at = start + 1
    negated = pattern[at : at + 1] == "^"
    at += negated
    ranges: list[str] = []
    while not (ranges and pattern[at : at + 1] == "]"):
        low, at = _bound(pattern, start, at)
        high = low
        if pattern[at : at + 1] == "-":
            high, at = _bound(pattern, start, at + 1)
        # A range that runs backwards matches nothing; that is no error.
        ranges.append(f"{re.escape(low)}-{re.escape(high)}" if low <= high else "")
    text = "".join(ranges)
    if not text:
        return ("." if negated else "(?!)"), at + 1
    return f"[{'^' if negated else ''}{text}]", at + 1


def _bound(pattern: str, start: int, at: int) -> tuple[str, int]:
    if pattern[at : at + 1] in {"", "-", "]"}:
        raise BadPattern(pattern, start)
    char, at = _literal(pattern, at)
    if at == len(pattern):
        raise BadPattern(pattern, start)
    return char, at
