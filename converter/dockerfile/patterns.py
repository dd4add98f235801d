"""The patterns of `${x#p}`, `${x%p}` and `${x/p/r}`: `*` and `?`, without bracket expressions, as BuildKit has them.

A pattern's stars are matched one after the other without going back, which finds the same and cannot take for ever.
"""

from __future__ import annotations

import re
from collections.abc import Iterator

_SPECIAL = frozenset("[]{}.+()|^$")
_TEMPLATE = re.compile(r"\$(?:\$|\{(\w+)\}|(\w+))")
_UNTIL_STAR = re.compile(r"(?:[^\\*]|\\.)*", re.DOTALL)
_MOST_WORK = 100_000_000  # characters of the pattern times characters of the value


class PatternError(ValueError):
    """A pattern that BuildKit refuses too, or one that would take too long."""


def trim_prefix(pattern: str, value: str, *, longest: bool) -> str:
    """`${x#pattern}` and, `longest`, `${x##pattern}`."""
    _check(pattern, value)
    match = _compile(pattern, longest).match(value)
    return value[match.end() :] if match else value


def trim_suffix(pattern: str, value: str, *, longest: bool) -> str:
    """`${x%pattern}` and, `longest`, `${x%%pattern}`: the same from behind."""
    return trim_prefix(_reversed(pattern), value[::-1], longest=longest)[::-1]


def replace(pattern: str, value: str, replacement: str, *, every: bool) -> str:
    """`${x/pattern/replacement}` and, `every`, `${x//pattern/replacement}`.

    Only with `every`, a `$name` left in the replacement is a group of Go's regular expressions, and so empty.
    """
    _check(pattern, value)
    if every:
        replacement = _TEMPLATE.sub(_group, replacement)
    done: list[str] = []
    copied, last_end = 0, -1
    for start, end in _matches(pattern, value):
        if start == end == last_end:  # nothing, right behind the match before, is no match
            continue
        done += (value[copied:start], replacement.replace("\0", value[start:end]) if every else replacement)
        copied = last_end = end
        if not every:
            break
    return "".join((*done, value[copied:]))


def _matches(pattern: str, value: str) -> Iterator[tuple[int, int]]:
    """Where the pattern is found, from the left, each time as long as it can be."""
    compiled = _compile(pattern, True)
    fixed = _UNTIL_STAR.match(pattern)
    beginning = _compile(fixed[0] if fixed else "", True)
    position = 0
    while position <= len(value) and (found := beginning.search(value, position)):
        if match := compiled.match(value, found.start()):
            yield match.span()
            position = max(match.end(), match.start() + 1)
        elif "*" in pattern:  # no star goes beyond a line's end: nothing further on in this line fits either
            newline = value.find("\n", found.start())
            if newline < 0:
                return
            position = newline + 1
        else:
            position = found.start() + 1


def _group(match: re.Match[str]) -> str:
    if match[0] == "$$":
        return "$"
    return "\0" if (match[1] or match[2]) == "0" else ""  # $0 is the whole match


def _check(pattern: str, value: str) -> None:
    if len(pattern) * len(value) > _MOST_WORK:
        raise PatternError(f"a pattern of {len(pattern)} characters is too long for a value of {len(value)}")


def _compile(pattern: str, longest: bool) -> re.Pattern[str]:
    """As atomic groups: each star takes as little as it can, only the last one takes as much when `longest`."""
    segments = [""]
    characters = iter(range(len(pattern)))
    for at in characters:
        character = pattern[at]
        if character == "*":
            segments.append("")
            continue
        if character == "?":
            character = "."
        elif character == "\\":
            following = pattern[at + 1 : at + 2]
            if following in ("}", "/"):  # they had to be escaped inside ${}; the escape is not the pattern's
                continue
            if following not in ("*", "?", "\\") or not following:
                raise PatternError(
                    f"invalid pattern ({pattern}) in substitution: invalid escape '\\{following}'"
                )
            character = "\\" + following
            next(characters)
        elif character in _SPECIAL or not character.isalnum():
            character = re.escape(character)
        segments[-1] += character
    first, *others = segments
    parts = [first, *(f"(?>.*?{segment})" for segment in others[:-1])]
    if others:
        parts.append(f".*{others[-1]}" if longest else f".*?{others[-1]}")
    return re.compile("".join(parts))


def _reversed(pattern: str) -> str:
    """Backwards, but for an escape, which stays before what it escapes."""
    out: list[str] = []
    at = 0
    while at < len(pattern):
        width = 2 if pattern[at] == "\\" and at + 1 < len(pattern) else 1
        out.append(pattern[at : at + width])
        at += width
    return "".join(reversed(out))
