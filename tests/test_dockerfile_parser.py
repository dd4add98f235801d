r"""Reading Dockerfiles: what BuildKit's parser finds, what we find beside it, and the place of whatever is wrong."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import pytest
from hypothesis import HealthCheck, example, given, settings
from hypothesis import strategies as st

from converter.dockerfile.lines import MOST_BYTES, MOST_JOINED, MOST_LINE
from converter.dockerfile.model import DockerfileError, Flag, Heredoc, Instruction
from converter.dockerfile.parser import read
from converter.dockerfile.writer import write


def _read(text: str) -> tuple[Instruction, ...]:
    return read("Dockerfile", text.encode()).instructions


def _one(text: str) -> Instruction:
    """The instruction below FROM."""
    (_, instruction) = _read(f"FROM scratch\n{text}")
    return instruction


def _error(data: str | bytes) -> str:
    with pytest.raises(DockerfileError) as raised:
        read("Dockerfile", data.encode() if isinstance(data, str) else data)
    return str(raised.value)


# --- directives and lines ---


@pytest.mark.parametrize(
    ("head", "escape", "syntax"),
    [
        ("", "\\", None),
        ("# escape=`\n", "`", None),
        ("#escape = `  \n", "`", None),
        ("  # ESCAPE=`\n", "`", None),
        ("# syntax=docker/dockerfile:1\n# escape=`\n", "`", "docker/dockerfile:1"),
        ("# escape=`\r\n# syntax=docker/dockerfile:1 --x\r\n", "`", "docker/dockerfile:1"),
        ("# check=skip=all\n# escape=`\n", "`", None),
        ("\ufeff# escape=`\n", "`", None),
        # too late: after a comment, an empty line, a directive that there is not
        ("# comment\n# escape=`\n", "\\", None),
        ("\n# escape=`\n", "\\", None),
        ("# unknown=x\n# escape=`\n", "\\", None),
        ("#\n# syntax=x\n", "\\", None),
    ],
)
def test_directives(head: str, escape: str, syntax: str | None) -> None:
    dockerfile = read("Dockerfile", f"{head}FROM scratch\nRUN a {escape}\n b\n".encode())
    assert (dockerfile.escape, dockerfile.syntax) == (escape, syntax)
    assert dockerfile.instructions[1].words == ("a  b",)


def test_where_an_instruction_stands() -> None:
    text = "# first\n\n  FROM scratch\n\nRUN a && \\\n  # comment\n\n\tb\r\n# last\nrun <<EOF\nx\nEOF\nCMD c"
    dockerfile = read("Dockerfile", text.encode())
    places = [(i.keyword, i.line, i.end_line, i.column) for i in dockerfile.instructions]
    assert places == [("FROM", 3, 3, 3), ("RUN", 5, 8, 1), ("RUN", 10, 12, 1), ("CMD", 13, 13, 1)]
    assert dockerfile.instructions[1].text == "RUN a && \\\n  # comment\n\n\tb"
    assert dockerfile.instructions[2].text == "run <<EOF\nx\nEOF"
    assert len(dockerfile.warnings) == 1
    assert dockerfile.warnings[0].startswith("Dockerfile:5: an empty line within an instruction")


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("RUN a\\\nb", ("ab",)),
        ("RUN a \\  \t\n  b", ("a   b",)),
        ("RUN a \\\n# c\n#\\\n b", ("a  b",)),
        ("RUN a\\\\\n", ("a\\\\",)),  # an escaped backslash continues nothing
        ("RUN a \\\n", ("a",)),
        ("\\\nRUN a", ("a",)),
        ("\\\n RUN a", ("a",)),
        ("RUN\ta\vb", ("a\vb",)),
        ("RUN a # b", ("a # b",)),
        ("RUN", ()),
        ("RUN []", ()),
        ('RUN ["a", "b c"]', ("a", "b c")),
        ('RUN ["\\u00e9\\n\\""]', ('é\n"',)),
        ("RUN ['a']", ("['a']",)),
        ('RUN ["a"] b', ("a",)),  # so it is in Docker 26: what follows is lost
        ('COPY ["a b", "c"]', ("a b", "c")),
        ("COPY a  b\tc", ("a", "b", "c")),
        ("ENV a=b c='d e' f=g\\ h", ("a", "b", "c", "'d e'", "f", "g\\ h")),
        ("ENV a b  c ", ("a", "b  c")),
        ("LABEL a.b=c", ("a.b", "c")),
        ('ARG a b=c d="e f"', ("a", "b=c", 'd="e f"')),
        ("HEALTHCHECK CMD a b", ("CMD", "a b")),
        ('HEALTHCHECK CMD ["a", "b"]', ("CMD", "a", "b")),
        ("HEALTHCHECK NONE", ("NONE",)),
        ("MAINTAINER A B <c>", ("A B <c>",)),
        ("ONBUILD RUN a", ("RUN", "a")),
        ("VOLUME /a /b", ("/a", "/b")),
    ],
)
def test_words(text: str, words: tuple[str, ...]) -> None:
    assert _one(text).words == words


def test_flags_know_their_columns() -> None:
    run = _one('RUN --mount=type=bind,target=/a \\\n  --network="none"  --security a --b')
    assert [(f.name, f.value, f.line, f.column) for f in run.flags] == [
        ("mount", "type=bind,target=/a", 2, 5),
        ("network", "none", 3, 3),
        ("security", None, 3, 21),
    ]
    assert run.words == ("a --b",)


def test_flags_hide_spaces_in_quotes_and_behind_backslashes() -> None:
    copy = _one("COPY --chown=a\\ b --exclude='c d'e --exclude=\"é\" -- --f g")
    assert [(f.name, f.value, f.column) for f in copy.flags] == [
        ("chown", "a b", 6),
        ("exclude", "c de", 19),
        ("exclude", "é", 36),
    ]
    assert copy.words == ("--f", "g")


# --- here-documents ---


@pytest.mark.parametrize(
    ("text", "heredocs"),
    [
        ("RUN <<EOF\na\nEOF", [("EOF", "a\n", True, False, 0)]),
        ("RUN <<'EOF'\na\nEOF", [("EOF", "a\n", False, False, 0)]),
        ('RUN <<"E"OF\na\nEOF', [("EOF", "a\n", False, False, 0)]),
        ("RUN <<-EOF\n\ta\n\t\tEOF", [("EOF", "\ta\n", True, True, 0)]),
        ("RUN 3<<EOF cat\na\nEOF", [("EOF", "a\n", True, False, 3)]),
        (
            "COPY <<a <<'b c' /d\n1\na\n2\nb c",
            [("a", "1\n", True, False, 0), ("b c", "2\n", False, False, 0)],
        ),
        ("ADD <<EOF /x\n# no comment\n\\\n\nEOF", [("EOF", "# no comment\n\\\n\n", True, False, 0)]),
        ("RUN a \\\n <<EOF\nb\nEOF", [("EOF", "b\n", True, False, 0)]),
        ("RUN <<EOF\nEOF", [("EOF", "", True, False, 0)]),
        ("RUN <<EOF\r\na\r\nEOF\r\n", [("EOF", "a\r\n", True, False, 0)]),
        # none
        ("RUN cat << EOF", []),
        ("RUN a<<EOF", []),
        ("RUN echo '<<EOF'", []),
        ("RUN echo \\<<EOF", []),
        ("RUN echo $((1<<2))", []),
        ("RUN cat <<<EOF", []),
        ('RUN ["cat", "<<EOF"]', []),
        ("CMD <<EOF", []),
    ],
)
def test_heredocs(text: str, heredocs: Sequence[tuple[str, str, bool, bool, int]]) -> None:
    assert _one(text).heredocs == tuple(Heredoc(*heredoc) for heredoc in heredocs)


def test_onbuild_keeps_its_trigger() -> None:
    text = "ONBUILD COPY --chown=a:b \\\n    --chmod=644 <<-'EOF' \\\n /x/\n\tb\n\tEOF\n"
    onbuild = _one(text)
    trigger = onbuild.trigger
    assert trigger is not None
    assert (onbuild.flags, onbuild.heredocs) == ((), ())
    assert [(f.name, f.value, f.line, f.column) for f in trigger.flags] == [
        ("chown", "a:b", 2, 14),
        ("chmod", "644", 3, 5),
    ]
    assert trigger.heredocs == (Heredoc("EOF", "\tb\n", False, True),)
    assert (trigger.line, trigger.column, trigger.end_line) == (2, 9, 6)
    assert trigger.text == "COPY --chown=a:b     --chmod=644 <<-'EOF'  /x/\n\tb\nEOF"  # as Docker stores it


def test_onbuild_in_exec_form() -> None:
    onbuild = _one('ONBUILD CMD ["a", "b"]')
    assert onbuild.words == ("CMD", "a", "b")
    assert onbuild.trigger is not None
    assert onbuild.trigger.is_json
    assert not onbuild.is_json


# --- errors ---

ERRORS: dict[str, tuple[str | bytes, str]] = {
    "nothing": ("", "1:1: the Dockerfile cannot be empty; begin with FROM"),
    "only comments": ("# a\n\n# b\n", "1:1: file with no instructions; begin with FROM"),
    "unknown": ("FROM a\n\n  RUNN x\n", "3:3: unknown instruction: RUNN; did you mean RUN?"),
    "unknown, lower case": ("FROM a\nentripoint x\n", "2:1: unknown instruction: entripoint; did you mean ENTRYPOINT?"),
    "unknown, like nothing": ("FROM a\nXYZZY\n", "2:1: unknown instruction: XYZZY; the instructions are ADD, ARG,"),
    "unknown trigger": ("FROM a\nONBUILD COPPY a b\n", "2:9: unknown instruction: COPPY; did you mean COPY?"),
    "not continued": ("FROM a\nRUN a\n  && b\n", "3:3: unknown instruction: &&"),
    "lonely backslash": ("FROM a\n\\\n", "2:1: unknown instruction: \\"),
    "ENV without value": ("FROM a\nENV a\n", "2:1: ENV must have two arguments; write NAME=value"),
    "ENV half": ("FROM a\nENV a=b \\\n    c d=e\n", '3:5: Syntax error - can\'t find = in "c"'),
    "not strings": ("FROM a\nCMD [1]\n", "2:5: when using JSON array syntax, arrays must be comprised of strings"),
    "no end": ("FROM a\nRUN b <<EOF\nx\n", "2:7: unterminated heredoc EOF; its end is a line that holds only EOF"),
    "end with spaces": ("FROM a\nRUN <<EOF\nx\n EOF\n", "2:5: unterminated heredoc EOF; line 4 holds more than EOF"),
    "end with tabs": ("FROM a\nRUN <<E\nx\n\tE\n", "2:5: unterminated heredoc E; <<-E allows the tabs of line 4"),
    "second heredoc": ("FROM a\nRUN <<A\nA\nCOPY <<B /x\nA\n", "4:6: unterminated heredoc B"),
    "escape twice": ("# escape=`\n# escape=`\nFROM a\n", "2:1: only one escape parser directive can be used"),
    "escape": ("#  escape=/\nFROM a\n", "1:11: invalid escape token '/' does not match ` or \\"),
    "NUL": ("FROM a\nRUN b\0c\n", "2:6: a NUL character"),
    "NUL in JSON": ('FROM a\nRUN ["b\\u0000"]\n', "2:8: a NUL character cannot be part of an argument"),
    "not UTF-8": (b"FROM a\nLABEL \xc3\xa9=\xe9\n", "2:9: the byte 0xe9 is not UTF-8"),
    "ONBUILD twice": ("FROM a\nONBUILD ONBUILD RUN b\n", "2:9: Chaining ONBUILD via `ONBUILD ONBUILD` isn't allowed"),
    "ONBUILD FROM": ("FROM a\nONBUILD FROM b\n", "2:9: FROM isn't allowed as an ONBUILD trigger"),
    "ONBUILD with a flag": ("FROM a\nONBUILD --x RUN b\n", "2:9: unknown flag: x; flags follow ONBUILD's"),
    "half a character": ("FROM a\nCOPY --chown=à b c\n", "2:6: a character that is not ASCII is taken for a space"),
}  # fmt: skip


@pytest.mark.parametrize("name", ERRORS)
def test_errors_point_at_their_place(name: str) -> None:
    data, message = ERRORS[name]
    assert _error(data).startswith(f"Dockerfile:{message}")


def test_the_place_is_that_of_the_first_error() -> None:
    text = "FROM a\n" + "RUN <<EOF\nENV x\nEOF\n# ENV y\n" * 50 + "RUN a \\\n\n# b\n  c\nENV z\nENV z\n"
    assert _error(text).startswith("Dockerfile:206:1: ENV must have two arguments")


def test_long_lines_are_refused_at_once() -> None:
    assert len(_one("RUN " + "x " * ((MOST_LINE - 4) // 2)).words[0]) > MOST_LINE - 10
    assert _error("FROM a\nRUN " + "x" * (100 << 20)).startswith(
        "Dockerfile:2:1: this line is longer than 65535"
    )
    assert _error("FROM a\nRUN <<E\n" + "x" * MOST_LINE + "y\nE\n").startswith(
        "Dockerfile:3:1: this line is longer"
    )
    assert _error("FROM a\n" + "RUN x\n" * (MOST_BYTES // 6)).startswith(
        "Dockerfile:1:1: the Dockerfile has "
    )


def test_what_the_parser_would_need_minutes_for_is_refused() -> None:
    joined = "FROM a\nRUN " + ("x" * 60 + " \\\n") * (MOST_JOINED // 60)
    assert _error(joined).startswith("Dockerfile:2:1: this instruction is longer than 256 KiB")
    words = "FROM a\nRUN " + "x" * 1000 + ("\\\n" + "x" * 1000) * 140
    assert _error(words).startswith("Dockerfile:2:5: this Dockerfile has words that are too long")
    assert _error("FROM a\n" + "ARG a\n" * 6000).startswith("Dockerfile:5001:1: more than 5000 instructions")


def test_messages_are_one_printable_line() -> None:
    assert "\n" not in _error("FROM a\nRUN\u2028\x1b[31m <<'E\x07'\n")


# --- written and read again ---


def _essence(instruction: Instruction | None) -> Any:
    """An instruction without its place."""
    if instruction is None:
        return None
    flags = tuple((flag.name, flag.value) for flag in instruction.flags)
    rest = (instruction.is_json, instruction.heredocs, _essence(instruction.trigger))
    return (instruction.keyword, instruction.words, flags, *rest)


def _check_written(text: str) -> int:
    """Every instruction of a text that can be read, written and read again. Says how many those were."""
    try:
        dockerfile = read("Dockerfile", text.encode())
    except DockerfileError:
        return 0
    head = f"# escape={dockerfile.escape}\n"
    for instruction in dockerfile.instructions:
        again = _read(head + write(instruction, dockerfile.escape))
        assert [_essence(one) for one in again] == [_essence(instruction)]
    whole = head + "".join(write(instruction, dockerfile.escape) for instruction in dockerfile.instructions)
    assert list(map(_essence, _read(whole))) == list(map(_essence, dockerfile.instructions))
    return len(dockerfile.instructions)


@pytest.mark.parametrize(
    "text",
    [
        'RUN --mount=type=bind,target="/a b" --network=none -- --x',
        'RUN ["a\\tb", "\\u00e9", "\\"\'\\\\", ""]',
        "RUN <<EOF 3<<-'F G'\na\\\nEOF\n\tb\n\tF G",
        "COPY --chown='a\"b' --exclude=\"é ' \\\\\" -- --a b",
        'COPY ["a",\v"b"]',
        "ENV a b=c",
        'ENV "a b" c',
        "ENV a 'b c' d",
        "ENV a=b\\ c d='e f' g=",
        "LABEL --  --a=",
        "ONBUILD ADD --link <<a <<b /x/\n1\na\n2\nb",
        'HEALTHCHECK --interval=1s CMD ["a", "b"]',
        "HEALTHCHECK --interval=1s CMD a | b",
        "RUN a\\\v",
        "CMD",
        "SHELL []",
        "ARG a b='c d' e=",
    ],
)
def test_written_and_read_again(text: str) -> None:
    assert _check_written(f"FROM a AS b\n{text}\n") == 2


_PIECES = st.sampled_from(
    [*'=,#$x"\'\\` \t\n\v\f\r[]é0', "\\\n", "`\n", "\r\n", "<<", "<<-", "<<E", "E\n", "\nE\n"]
    + ["3<<'F'", "\nF\n", "\tE\n"]
    + ["--a ", "--b=", "-- ", '["a"', ',"b"]', "# c\n", "${y:-z}", "NONE ", "CMD ", "\u00a0", "\x85", "word"]
    + [f"{keyword} " for keyword in ("RUN", "COPY", "ADD", "ENV", "LABEL", "ARG", "ONBUILD", "HEALTHCHECK", "VOLUME")]
)  # fmt: skip


@given(
    st.sampled_from(("", "# escape=`\n")), st.lists(st.lists(_PIECES, max_size=8).map("".join), max_size=5)
)
@settings(max_examples=500, suppress_health_check=[HealthCheck.too_slow], deadline=None)
@example("", ["RUN a\\\v"])
@example("", ["LABEL -- \\\n--b="])
def test_whatever_can_be_read_can_be_written(head: str, lines: list[str]) -> None:
    _check_written(head + "FROM a\n" + "\n".join(lines))


_SAFE = st.characters(codec="utf-8", exclude_characters="\0", exclude_categories=["Cs"])
_FLAG = st.tuples(st.text("abc-", min_size=1).map(lambda name: f"x{name}"), st.text(_SAFE, max_size=12))


@given(st.lists(_FLAG, max_size=3), st.lists(st.text(_SAFE, max_size=12), max_size=4))
@settings(max_examples=300, deadline=None)
def test_flags_and_exec_forms_hold_any_text(flags: list[tuple[str, str]], words: list[str]) -> None:
    """What is made by hand, not by reading, is written just the same; a line's end is no part of a flag."""
    one_line = [(name, value.replace("\n", " ")) for name, value in flags]
    made = Instruction(
        keyword="RUN",
        words=tuple(words),
        text="",
        file="Dockerfile",
        line=1,
        end_line=1,
        flags=tuple(Flag(name, value, 1, 1) for name, value in one_line),
        is_json=True,
    )
    (again,) = _read(write(made))
    assert _essence(again) == _essence(made)
