r"""Expressions and their values, as BuildKit says: each is what stands behind `LABEL key=` below PREAMBLE.

expressions.json: expression -> value, or null where the build fails. test_expansion.py compares ours with it without
Docker; test_equal.py asks BuildKit again, and with D2N_WRITE_DOCKERFILES=1 writes what it says.
"""

from __future__ import annotations

import json
from collections.abc import Iterable
from pathlib import Path

MEASURED = Path(__file__).with_name("expressions.json")

PREAMBLE = r"""FROM busybox:lab
ARG given=argument
ARG unset
ARG blank=
ENV w=world e= lib=/usr/lib/libx.so.1.2 gaps="a  b c" dq='say "hi"' sq="it's" und=a_b_c slash=a/b/c/a ver=1.22.333
ENV star=*.txt bracket=[x] bs="back\\slash" dollar="\$w" ko=한국어 up=ABCabc dots=... tail=xx.tar.gz.tar.gz
ENV A1=digit _u=underscore ünï=unicode aaaa=aaaa money='$5' re=a.c+d(e) nl="one\
two"
"""


def dockerfile(expressions: Iterable[str]) -> str:
    """A Dockerfile with a label e0, e1, … for each expression."""
    return PREAMBLE + "".join(f"LABEL e{number}={text}\n" for number, text in enumerate(expressions))


def measured() -> dict[str, str | None]:
    """What BuildKit says."""
    return dict(json.loads(MEASURED.read_text()))


def write(values: dict[str, str | None]) -> None:
    """Keep what BuildKit has said now."""
    MEASURED.write_text(json.dumps(values, indent=0, ensure_ascii=False) + "\n")
