"""A regular expression that wildcards have become, matched without backtracking: hostile ones would take years.

All places in the text that the expression can have come to are kept at once, as the bits of a number.
"""

from __future__ import annotations

import re
from dataclasses import dataclass

# One character or a class, perhaps any number of times; `(?:.*/)?` is what `**/` becomes.
_ATOM = re.compile(
    r"(?P<deep>\(\?:\.\*/\)\?)|(?P<one>\.|\[\^?\]?(?:\\.|[^\]\\])*\]|\\.|[^\\\[])(?P<many>\*?)", re.DOTALL
)
_PLACES = frozenset({"^", r"\A", r"\Z", r"\b", r"\B"})  # these match between characters
_DEEP = re.compile(".")


@dataclass(frozen=True)
class _Step:
    one: re.Pattern[str]
    many: bool = False
    deep: bool = False
    place: bool = False


@dataclass(frozen=True)
class LinearPattern:
    """Takes time that grows with the product of both lengths, and no more."""

    steps: tuple[_Step, ...]

    def matches(self, text: str) -> bool:
        """Does it match all of the text?"""
        marks: dict[str, int] = {}
        slashes = _marked(re.compile("/"), text)
        at = 1
        for step in self.steps:
            key = step.one.pattern
            if key not in marks:
                marks[key] = _marked(step.one, text)
            mark = marks[key]
            if step.deep:
                at |= (_flooded(at, mark) & slashes) << 1
            elif step.place:
                at &= mark
            elif step.many:
                at = _flooded(at, mark)
            else:
                at = (at & mark) << 1
            if not at:
                return False
        return bool(at >> len(text) & 1)


def backtracks(expression: str) -> bool:
    """Can matching with Python's re take much longer than reading the text? One or two wildcards are harmless."""
    body = expression.removesuffix(".*")
    return sum(1 for atom in _ATOM.finditer(body) if atom["deep"] or atom["many"]) > 2


def compile_linear(expression: str) -> LinearPattern:
    """Of the expressions that re.compile takes, those with nothing but characters, classes, `*` and `(?:.*/)?`."""
    steps = []
    for atom in _ATOM.finditer(expression):
        if atom["deep"]:
            steps.append(_Step(_DEEP, deep=True))
        else:
            one = atom["one"]
            steps.append(_Step(re.compile(one), many=bool(atom["many"]), place=one in _PLACES))
    return LinearPattern(tuple(steps))


def _marked(one: re.Pattern[str], text: str) -> int:
    """The places where it matches, as bits."""
    bits = bytearray(len(text) + 1)
    for found in one.finditer(text):
        bits[found.start()] = 1
    return int(bits[::-1].translate(_DIGITS), 2)


_DIGITS = bytes([48, 49]) + bytes(254)


def _flooded(at: int, mark: int) -> int:
    """These places and all that are reached from them over marked ones: the addition's carry runs through them."""
    return at | ((at & mark) + mark) ^ mark
