"""Hostile Dockerfiles: each is a Recipe or one line that says what is wrong, in bounded time and memory."""

from __future__ import annotations

import os
import random
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from converter.dockerfile.model import Recipe
from converter.image.model import ImageConfig
from fuzz.dockerfile_checks import PATH, recipe_or_error
from tests.hostile_dockerfiles import dockerfiles

_REPOSITORY = Path(__file__).parent.parent
_CORPUS = _REPOSITORY / "fixtures/dockerfiles"
_MEBIBYTE = 1 << 20


def test_a_command_in_every_field() -> None:
    outcomes = {name: recipe_or_error(data) for name, data in dockerfiles()}
    assert len(outcomes) > 1000
    assert sum(isinstance(outcome, Recipe) for outcome in outcomes.values()) > 400
    assert sum(isinstance(outcome, str) for outcome in outcomes.values()) > 100


def test_a_base_image_that_means_no_good() -> None:
    names = ("A=1\n>/canary", "=", "no-equals-sign", "", "B=$(>/canary)", "C=\udcff", "B=again", PATH)
    config = ImageConfig(
        user="$(>/canary)\n",
        env=names,
        cmd=("a\n", "$(>/canary)"),
        working_dir="../..//\n>/canary",
        shell=("", "\n"),
        on_build=("RUN $(>/canary)", "COPY . ../../..", "ENV X=$A${B}", "WORKDIR ../../../$C"),
        stop_signal="\n",
        labels={"": "", "a\nb": "\udcff"},
        volumes=("../..", "\n", ""),
        exposed_ports=("x\n",),
    )
    for text in (b"FROM base\nRUN true\n", b"FROM base AS a\nFROM a\nWORKDIR x\nCOPY x $B\n"):
        recipe_or_error(text, config)
    for trigger in (
        *("FROM x", "ONBUILD RUN x", "MAINTAINER x", "", "\n", "NO such", "RUN <<EOF", "RUN <<EOF\nx\nEOF"),
        *("COPY <<EOF /x\nx\nEOF\nRUN y", "RUN x\nRUN y", "# comment", "CMD [", "COPY", "RUN --mount=x=y z"),
        *("\0", "\udcff", "ENV \udcff=1", "COPY --from=" + "x" * 100_000 + " a b"),
    ):
        recipe_or_error(b"FROM base\nRUN true\n", ImageConfig(env=(PATH,), on_build=(trigger,)))


GARBAGE = {
    "empty": b"",
    "nothing-but-lines": b"\n" * 1000,
    "zeros": bytes(5000),
    "every-byte": bytes(range(256)) * 20,
    "elf": Path(sys.executable).read_bytes()[: 1 << 18],
    "utf-16": "FROM debian\nRUN true\n".encode("utf-16"),
    "bom": b"\xef\xbb\xbfFROM debian\nRUN true\n",
    "latin-1": "FROM debian\nENV A=é\nRUN echo é\n".encode("latin-1"),
    "half-a-character": b"FROM debian\nENV A=\xc3\nLABEL \xe2\x82=1\nUSER \xff\n",
    "surrogate": b"FROM debian\nENV A=\xed\xa0\x80\nCMD [\"\xed\xb2\x80\", \"\\ud800\"]\n",
    "nul-in-word": b"FROM debian\nENV A=a\0b\nRUN echo a\0b\nWORKDIR /a\0b\n",
    "nul-in-json": b'FROM debian\nRUN ["a\\u0000b"]\n',
    "no-newline": b"FROM debian\nRUN true \\",
    "only-escape": b"\\",
    "directives": b"# escape=\\\n# escape=`\n# syntax=x\nFROM a\n",
    "directive-wrong": b"# escape=xx\nFROM a\n",
    "directive-newline": b"# syntax=\x0bRUN\nFROM a\n",
    "carriage-returns": b"FROM a\rRUN b\rCMD c",
    "other-spaces": "FROM\u00a0a\nRUN\u2003b\nENV\u0085A=1\n\u3000CMD x\n".encode(),
    "unknown-instructions": "".join(f"{c}X\n" for c in "ABC\u202e\u0130\u017f").encode(),
    "dotless": "FROM a\nru\u0274 x\ncop\u0443 a b\n\u017fHELL x\n".encode(),
    "heredoc-open": b"FROM a\nRUN <<EOF\ntext",
    "heredoc-many": b"FROM a\nCOPY " + b" ".join(b"<<E%d" % n for n in range(500)) + b" /x/\n"
    + b"".join(b"E%d\n" % n for n in range(500)),
    "heredoc-names": b"FROM a\nCOPY <<../../x <<'/etc/x' <<\"a b\" <<. <<.. /x/\n../../x\n/etc/x\na b\n.\n..\n",
    "heredoc-empty-name": b"FROM a\nCOPY <<'' /x/\ntext\n\nRUN <<\"\"\n\n",
    "heredoc-descriptor": b"FROM a\nRUN cat 99999999999999999999<<EOF\nx\nEOF\nRUN 7<<-EOF\nx\nEOF\n",
    "flags": b"FROM a\nRUN --mount=type= --mount --mount= --=x --\xff=1 -- --network true\n",
    "flag-open-quote": b"FROM a\nCOPY --chown=\"a b c\nRUN --mount=type=bind,\"x\n",
    "mount-lists": b"FROM a\nRUN --mount=type=cache,target=/x,uid=-1,gid=99999999999999999999,mode=9999 true\n",
    "mount-sizes": b"FROM a\nRUN --mount=type=tmpfs,target=/x,size=99999999999999999999999e9k true\n",
    "numbers": b"FROM a\nEXPOSE 99999999999999999999-1 -1 0 65536 1-70000 x/y/z 1-2:3\nHEALTHCHECK --retries=-1 "
    b"--interval=99999999999999h CMD x\nHEALTHCHECK --interval=1ns CMD x\nHEALTHCHECK --timeout=-5s CMD y\n",
    "chmod": b"FROM a\nCOPY --chmod=99999999999999999999 a b\nCOPY --chmod=-1 a b\nCOPY --chmod=u+x a b\n",
    "sources": b"FROM a\nCOPY ../../etc/shadow /x\nCOPY /../../../etc/shadow ../../../../y\nADD //etc/shadow /\n",
    "json": b'FROM a\nCMD [1]\nCMD ["a", null]\nCMD [["a"]]\nCMD {"a": 1}\nCMD []\nCOPY []\nRUN [""]\nSHELL []\n',
    "platforms": b"FROM --platform=a/b/c/d/e a\n",
    "names": b"FROM a AS 0\nFROM a AS scratch\nFROM scratch AS A\nFROM a as a\nCOPY --from=A x y\n",
    "onbuild": b"FROM a\nONBUILD ONBUILD RUN x\nONBUILD FROM x\nONBUILD\n",
    "onbuild-deep": b"FROM a\n" + b"ONBUILD " * 5000 + b"RUN x\n",
    "before-from": b"RUN x\nFROM a\n",
    "args-only": b"ARG A=1\nARG B=$A\n",
    "cycle-self": b"FROM a AS a\nCOPY --from=a x y\n",
    "cycle-two": b"FROM x AS a\nCOPY --from=b x y\nFROM x AS b\nCOPY --from=a x y\n",
    "cycle-numbers": b"FROM x\nCOPY --from=1 x y\nFROM x\nCOPY --from=0 x y\n",
    "cycle-mounts": b"FROM x AS a\nRUN --mount=from=b x\nFROM x AS b\nRUN --mount=from=a x\n",
    "cycle-from": b"FROM b AS a\nFROM a AS b\nFROM b\n",
    "from-numbers": b"FROM 0\nFROM 1\nCOPY --from=-1 a b\nCOPY --from=99999999999999999999 a b\n",
}  # fmt: skip


@pytest.mark.parametrize("name", GARBAGE)
def test_garbage(name: str) -> None:
    recipe_or_error(GARBAGE[name])


def _doubling(first: bytes, line: bytes, times: int) -> bytes:
    return b"FROM a\n" + first + line * times


def _long(line: bytes) -> bytes:
    return b"FROM a\nENV A=" + b"a" * 60_000 + b"\n" + line + b"\n"


# Each must come to an end with 1.5 GiB more memory and in 60 seconds of CPU time; most take a moment.
BOMBS: dict[str, Callable[[], bytes]] = {
    "one-line-of-100-mb": lambda: b"FROM a\nENV A=" + b"x" * (100 * _MEBIBYTE),
    "100-mb-of-lines": lambda: b"FROM a\n" + b"\n" * (100 * _MEBIBYTE),
    "100-mb-of-comments": lambda: b"#\n" * (50 * _MEBIBYTE) + b"FROM a\n",
    "100-mb-of-continued-lines": lambda: b"FROM a\nRUN true" + b" \\\n x" * (20 * _MEBIBYTE),
    "100-mb-heredoc": lambda: b"FROM a\nCOPY <<EOF /x\n" + b"$x y\n" * (20 * _MEBIBYTE) + b"EOF\n",
    "values-that-double": lambda: _doubling(b"ENV A=0123456789\n", b"ENV A=$A$A\n", 64),
    "arguments-that-double": lambda: b"ARG A=xx\n" + b"ARG A=$A$A\n" * 64 + b"FROM a:$A\n",
    "stage-arguments-that-double": lambda: _doubling(b"ARG A=xx\n", b"ARG A=$A$A\n", 64),
    "labels-that-double": lambda: _doubling(b"ENV A=0123456789\n", b"ENV A=$A$A\nLABEL a=$A\n", 64),
    "working-directories-that-grow": lambda: _doubling(b"", b"WORKDIR " + b"d/" * 5000 + b"\n", 2000),
    "replacements-that-grow": lambda: _doubling(b"ENV A=xxxxxxxx\n", b"ENV A=${A//x/$A}\n", 16),
    "values-in-heredocs": lambda: _long(b"COPY <<EOF /x\n" + b"$A" * 30_000 + b"\nEOF"),
    "values-nested": lambda: b"FROM a\nENV A=" + b"${a:-" * 10_000 + b"x" + b"}" * 10_000 + b"\n",
    "values-nested-open": lambda: b"FROM a\nENV A=" + b"${a:-" * 10_000 + b"\n",
    "quotes-nested": lambda: b"FROM a\nENV A=" + b"\"${a:-'" * 5_000 + b"\n",
    "backslashes": lambda: b"FROM a\nENV A=" + b"\\" * 60_000 + b"\n",
    "patterns-that-backtrack": lambda: _long(b"ENV B=${A##" + b"*a" * 50 + b"*b}"),
    "patterns-that-backtrack-at-the-end": lambda: _long(b"ENV B=${A%" + b"*a" * 50 + b"b}"),
    "patterns-that-backtrack-everywhere": lambda: _long(b"ENV B=${A//" + b"*a" * 50 + b"b/x}"),
    "many-instructions": lambda: b"FROM a\n" + b"RUN true\n" * 20_000,
    "many-variables": lambda: b"FROM a\n" + b"".join(b"ENV A%d=$A%d.\n" % (n, n - 1) for n in range(1000)),
    "many-variables-in-one": lambda: b"FROM a\nENV" + b"".join(b" A%d=1" % n for n in range(6000)) + b"\n",
    "many-stages": lambda: b"FROM a AS s0\n"
    + b"".join(b"FROM s%d AS s%d\nRUN true\n" % (n, n + 1) for n in range(5000)),
    "many-stages-each-from-each": lambda: b"".join(
        b"FROM a AS s%d\n" % n + b"".join(b"COPY --from=s%d x y\n" % m for m in range(n)) for n in range(120)
    ),
    "many-stages-with-all-before": lambda: b"FROM a AS s\n" + b"FROM s AS s\nRUN true\n" * 3000,
    "many-triggers": lambda: b"FROM a AS s0\n" + b"ONBUILD RUN true\n" * 3000 + b"FROM s0\n" * 20,
    "many-triggers-that-stay": lambda: b"FROM a AS s0\nONBUILD ENV A=$A$A\n"
    + b"".join(b"FROM s%d AS s%d\nONBUILD ENV A=x$A$A\n" % (n, n + 1) for n in range(60)),
    "many-heredocs": lambda: b"FROM a\n" + b"RUN <<E\nx\nE\n" * 10_000,
    "many-mounts": lambda: b"FROM a\nRUN " + b"--mount=type=cache,target=/x " * 2_000 + b"true\n",
    "many-sources": lambda: b"FROM a\nCOPY " + b"x " * 30_000 + b"/y/\n",
    "json-deep": lambda: b"FROM a\nCMD " + b"[" * 60_000 + b"\n",
    "json-long": lambda: b"FROM a\nCMD [" + b'"x",' * 10_000 + b'"x"]\n',
    "one-chain-of-lines": lambda: b"FROM a\nRUN true" + b" && \\\n  # comment\n\n  true" * 100_000 + b"\n",
    "flags-long": lambda: b"FROM a\nCOPY " + b"--exclude=x " * 5_000 + b"a b\n",
    "directives-many": lambda: b"# x=y\n" * 1_000_000 + b"FROM a\n",
}  # fmt: skip

# In a process of its own: its memory and CPU time end it, or it prints what came of it.
_BOUNDED = """
import re, resource, sys
from pathlib import Path
from fuzz.dockerfile_checks import recipe_or_error
from tests.test_hostile_dockerfiles import BOMBS
data = BOMBS[sys.argv[1]]()
recipe_or_error(b"FROM a\\n")
size = int(re.search(r"VmSize:\\s+(\\d+)", Path("/proc/self/status").read_text())[1]) * 1024
resource.setrlimit(resource.RLIMIT_AS, (size + (3 << 29),) * 2)
resource.setrlimit(resource.RLIMIT_CPU, (60, 60))
outcome = recipe_or_error(data)
print(outcome if isinstance(outcome, str) else "a recipe")
"""


@pytest.mark.parametrize("name", BOMBS)
def test_bombs(name: str) -> None:
    done = subprocess.run(
        [sys.executable, "-c", _BOUNDED, name],
        capture_output=True,
        text=True,
        cwd=_REPOSITORY,
        env={**os.environ, "PYTHONPATH": str(_REPOSITORY), "PYTHONDONTWRITEBYTECODE": "1"},
        check=False,
    )
    assert done.returncode == 0, done.stderr[-2000:]
    assert done.stdout.count("\n") == 1


_PIECES = (
    *("FROM a\n", "FROM a AS b\n", "FROM --platform=$X b\n", "COPY --from=b ", "RUN <<EOF\n", "EOF\n", "ARG A\n"),
    *("ENV A=", "${A:-", "${A##*/", "${A//", "$A", "${", "}", "'", '"', "\\", "\\\n", "`", "\n", "\r\n", " ", "#"),
    *("# escape=`\n", "--mount=type=bind,", "--chown=", "--", "=", "[", ']"', '["', "<<", "<<-", "ONBUILD ", "..", "/"),
    *("*", "\0", "\x7f", "\u2028", "\u00a0", "é", "😀", "HEALTHCHECK ", "CMD ", "USER ", "SHELL ", "ADD http://"),
    *("\t", "WORKDIR ", "VOLUME ", "EXPOSE "),
)  # fmt: skip
_TEXTS = [path.read_bytes() for path in sorted(_CORPUS.iterdir())]


@settings(max_examples=400, deadline=None, suppress_health_check=list(HealthCheck))
@given(st.lists(st.one_of(st.sampled_from(_PIECES), st.text(max_size=8)), max_size=40))
def test_pieces_put_together(pieces: list[str]) -> None:
    recipe_or_error("".join(pieces).encode("utf-8", "surrogatepass"))


@settings(max_examples=400, deadline=None, suppress_health_check=list(HealthCheck))
@given(st.randoms(use_true_random=False))
def test_mutated_corpus(dice: random.Random) -> None:
    recipe_or_error(_mutated(dice))


def _mutated(dice: random.Random) -> bytes:
    """A file of the corpus with a few changes: cut, doubled, moved, other bytes, pieces of syntax."""
    data = dice.choice(_TEXTS)
    for _ in range(dice.randint(1, 6)):
        start = dice.randrange(len(data) + 1)
        end = min(len(data), start + dice.choice((0, 1, 1, 3, 10, 100)))
        piece = data[start:end]
        match dice.randrange(5):
            case 0:
                piece = b""
            case 1:
                piece = piece * 2
            case 2:
                piece = dice.choice(_PIECES).encode()
            case 3:
                piece = bytes(dice.randrange(256) for _ in piece)
            case _:
                other = dice.choice(_TEXTS)
                at = dice.randrange(len(other))
                piece = other[at : at + dice.choice((1, 10, 100))]
        data = data[:start] + piece + data[end:]
    return data


def _bits() -> Iterator[bytes]:
    text = b'# escape=`\nFROM a AS b\nCOPY <<-"E" --chown=1 /x\n\ty\nE\nRUN ["a"]\nENV A=${B:-\'c\'}\n'
    for position in range(len(text)):
        for bit in range(8):
            yield text[:position] + bytes([text[position] ^ 1 << bit]) + text[position + 1 :]


def test_every_bit_flipped() -> None:
    outcomes = [recipe_or_error(data) for data in _bits()]
    assert any(isinstance(outcome, Recipe) for outcome in outcomes)
    assert any(isinstance(outcome, str) for outcome in outcomes)
