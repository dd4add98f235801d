r"""Expansion as BuildKit does it. The facts are those of its documentation and of its own tests (shell/lex_test.go)."""

from __future__ import annotations

import pytest

from converter.dockerfile.expand import Expander, ExpansionError, split_raw

ENV = {
    "x": "value",
    "empty": "",
    "path": "a/b/c/b.tar.gz",
    "spaces": " one  two ",
    "dollar": "$x",
    "stars": "a*b?c",
    "ümlaut": "ü",
    "lines": "a\nb\nc",
    "1": "positional",
    "long": "a" * 300,
}

WORDS = {
    # plain, quotes, escapes
    "": "",
    "plain": "plain",
    "'$x'": "$x",
    '"$x"': "value",
    '"it\'s"': "it's",
    "'say \"hi\"'": 'say "hi"',
    r"\$x": "$x",
    r"\\$x": r"\value",
    r"a\b": "ab",
    r'"a\b"': r"a\b",
    r'"a\"b\$c\\d"': r'a"b$c\d',
    r"'a\'": "a\\",
    "end\\": "end",
    "a'b c'\"d e\"f": "ab cd ef",
    # names
    "$x": "value",
    "${x}": "value",
    "$x.y": "value.y",
    "$xy": "",
    "$none": "",
    "${none}": "",
    "$": "$",
    "$$": "",  # a special parameter, which nothing sets
    "a$": "a$",
    "$ x": "$ x",
    "$/x": "$/x",
    "$1": "positional",
    "$1x": "positionalx",
    "$12": "",
    "$@ $* $# $? $- $!": "     ",
    "$ümlaut": "ü",
    "$dollar": "$x",  # a value is not expanded again
    # defaults
    "${x:-w}": "value",
    "${x-w}": "value",
    "${empty:-w}": "w",
    "${empty-w}": "",
    "${none:-w}": "w",
    "${none-w}": "w",
    "${none:-}": "",
    "${none:-$x}": "value",
    "${none:-${none:-${x}}}": "value",
    '${none:-"a b"}': "a b",
    "${none:-'$x'}": "$x",
    r"${none:-\}}": "}",
    "${none:-a}b}": "ab}",
    "${x:+w}": "w",
    "${x+w}": "w",
    "${empty:+w}": "",
    "${empty+w}": "w",
    "${none:+w}": "",
    "${none+w}": "",
    "${x:?message}": "value",
    "${empty?message}": "",
    # from the beginning and from the end
    "${path#*b}": "/c/b.tar.gz",
    "${path##*b}": ".tar.gz",
    "${path%.*}": "a/b/c/b.tar",
    "${path%%.*}": "a/b/c/b",
    "${path#a/?/}": "c/b.tar.gz",
    "${path#b}": "a/b/c/b.tar.gz",
    "${path%%*}": "",
    "${path#}": "a/b/c/b.tar.gz",
    "${none#a}": "",
    r"${stars#a\*}": "b?c",
    r"${stars%\?c}": "a*b",
    "${stars#a[*]}": "a*b?c",  # there are no bracket expressions
    "${lines#*}": "a\nb\nc",
    "${lines##*}": "\nb\nc",  # a star ends where a line ends
    "${lines%%*}": "a\nb\n",
    # replaced
    "${path/b/X}": "a/X/c/b.tar.gz",
    "${path//b/X}": "a/X/c/X.tar.gz",
    "${path/\\//X}": "aXb/c/b.tar.gz",
    "${path//\\//_}": "a_b_c_b.tar.gz",
    "${path/b*/X}": "a/X",
    "${path//b/}": "a//c/.tar.gz",
    "${path/none/X}": "a/b/c/b.tar.gz",
    "${none/a/b}": "",
    "${x/*/}": "",
    "${x//*/y}": "y",
    "${x//?/ab}": "ababababab",
    r"${stars/\*/-}": "a-b?c",
    "${lines//?/x}": "x\nx\nx",
    "${x/l/$empty}": "vaue",
    "${x/v/${none:-w}}": "walue",
    "${x/v/$dollar}": "$xalue",
    "${x//v/$dollar}": "alue",  # Go takes the $x of a replacement for a group
}

ERRORS = {
    "'open": "looking for matching single-quote",
    '"open': "looking for matching double-quote",
    '"open\\': "looking for matching double-quote",
    "${": "missing '}'",
    "${x": "missing '}'",
    "${x:-w": "missing '}'",
    "${}": "bad substitution",
    "${{x}": "bad substitution",
    "${:x}": "bad substitution",
    "${none:?}": "none: is not allowed to be unset",
    "${none?}": "none: is not allowed to be unset",
    "${empty:?}": "empty: is not allowed to be empty",
    "${none:?give $x}": "none: give value",
    "${x:1:2}": "unsupported modifier (:1)",
    "${x^^}": "unsupported modifier (^)",
    "${x=w}": "unsupported modifier (=)",
    "${x@Q}": "unsupported modifier (@)",
    "${x/a}": "missing '/' in ${}",
    "${x/a/b": "missing '}'",
    r"${x/\a/b}": "invalid escape",
    r"${x#a\b}": "invalid escape",
}


@pytest.mark.parametrize(("text", "value"), WORDS.items())
def test_value(text: str, value: str) -> None:
    assert Expander().word(text, ENV) == value


@pytest.mark.parametrize(("text", "message"), ERRORS.items())
def test_error(text: str, message: str) -> None:
    with pytest.raises(ExpansionError, match="failed to process") as raised:
        Expander().word(text, ENV)
    assert message in str(raised.value)


@pytest.mark.parametrize(
    ("text", "value"),
    {
        r"a\b": r"a\b",
        "`$x": "$x",
        "a`b": "ab",
        '"`"`$x"': '"$x',
        r"C:\$x": r"C:\value",
        "${path#a`/}": "a/b/c/b.tar.gz",  # in a pattern it is the backslash that escapes
        r"${path#a\/}": "b/c/b.tar.gz",
    }.items(),
)
def test_the_escape_directive(text: str, value: str) -> None:
    assert Expander("`").word(text, ENV) == value


@pytest.mark.parametrize(
    ("text", "words"),
    {
        "a b": ["a", "b"],
        "  a \t b ": ["a", "b"],
        "'a b' c": ["a b", "c"],
        r"a\ b": ["a b"],
        "$spaces": ["one", "two"],
        '"$spaces"': [" one  two "],
        "x${spaces}y": ["x", "one", "two", "y"],
        "$empty $none ''": [],
        "${none:-a b}": ["a", "b"],
    }.items(),
)
def test_words(text: str, words: list[str]) -> None:
    assert Expander().words(text, ENV) == words


def test_raw_words_keep_quotes_escapes_and_unset_names() -> None:
    text = r"""cat "a b" 'c' \<d $x ${y} ${z:-w} ${z/a/b}"""
    assert split_raw(text, raw=True) == [
        *("cat", '"a b"', "'c'", r"\<d", "$x", "${y}", "${z:-w}", "${z/a/b}"),
    ]


def test_a_heredoc_keeps_its_quotes() -> None:
    text = "it's \"$x\" '${none:-$x}' \\$x\n"
    assert Expander("`").heredoc(text, ENV) == "it's \"value\" 'value' $x\n"


def test_nesting_has_an_end() -> None:
    deep = "${none:-" * 90 + "w" + "}" * 90
    assert Expander().word(deep, {}) == "w"
    with pytest.raises(ExpansionError, match="nested"):
        Expander().word("${none:-" * 101 + "w" + "}" * 101, {})


def test_values_do_not_grow_beyond_bounds() -> None:
    expander = Expander()
    value = "x" * 1000
    with pytest.raises(ExpansionError, match="MiB"):
        for _ in range(100):
            value = expander.word("$value$value", {"value": value})
    assert len(value) < 1 << 25


def test_many_middling_values_do_not_either() -> None:
    expander = Expander()
    with pytest.raises(ExpansionError, match="together"):
        for _ in range(1000):
            expander.word("$value", {"value": "x" * (1 << 20)})


def test_a_pattern_that_others_would_go_back_and_forth_in() -> None:
    value = {"v": "a" * 50_000}
    stars = "*a" * 40
    assert Expander().word(f"${{v#{stars}b}}", value) == value["v"]
    assert Expander().word(f"${{v//{stars}*b/c}}", value) == value["v"]
    assert Expander().word(f"${{v%%{stars}}}", value) == ""


def test_a_replacement_that_multiplies() -> None:
    with pytest.raises(ExpansionError, match="MiB"):
        Expander().word("${v//a/$v}", {"v": "a" * 50_000})
