"""Patterns without backtracking match what Python's re matches."""

from __future__ import annotations

import re

from hypothesis import given
from hypothesis import strategies as st

from converter.dockerfile.ignore import read_ignore_file
from converter.dockerfile.linear import backtracks, compile_linear
from converter.dockerfile.wildcard import matches

_ATOMS = (
    "a",
    "b",
    "/",
    r"\.",
    r"\b",
    "^",
    ".",
    "[^/]",
    "[ab]",
    "[^a]",
    "a*",
    ".*",
    "[^/]*",
    "[ab]*",
    "(?:.*/)?",
)


@given(st.lists(st.sampled_from(_ATOMS), max_size=8), st.text("ab/.\n", max_size=10))
def test_as_re(atoms: list[str], text: str) -> None:
    expression = "".join(atoms)
    assert compile_linear(expression).matches(text) == (re.fullmatch(expression, text) is not None)


def test_what_backtracks() -> None:
    assert not backtracks(r"(?:.*/)?[^/]*\.pyc")
    assert not backtracks(r"(?:.*/)?[^/]*/.*")
    assert backtracks("[^/]*a[^/]*b[^/]*c")
    assert backtracks("(?:.*/)?(?:.*/)?(?:.*/)?x")


def test_many_wildcards_in_an_ignore_file() -> None:
    ignore = read_ignore_file(".dockerignore", b"**/*a*b*/**/*.c\n")
    ignored = {
        path for path in ("xaxbx/c.c", "d/e/ab/f/g/.c", "ab.c", "ba/x.c", "ab/x.d") if ignore.decide(path)[0]
    }
    assert ignored == {"xaxbx/c.c", "d/e/ab/f/g/.c"}


def test_wildcards_take_the_first_place_that_fits() -> None:
    """As Go's filepath.Match, whose class may match a slash: no other place for the first `*` is tried."""
    assert matches("*a*b", "xaxaxb")
    assert matches("*[^x]*b", "a/b") is False
    assert matches("*/*[ab]c", "d/abac")
    assert not matches("*a*b", "xbxa")
