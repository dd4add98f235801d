"""`.dockerignore`: which paths of the build context are not there for a build.

The rules are those of github.com/moby/patternmatcher and its ignorefile, which Docker and BuildKit call. COPY's
--exclude and --parents are matched by the same rules.
"""

from __future__ import annotations

import posixpath
import re
from collections.abc import Callable, Iterable
from dataclasses import dataclass, field

from converter.dockerfile.linear import backtracks, compile_linear
from converter.dockerfile.model import DockerfileError
from converter.dockerfile.wildcard import BadPattern, compile_pattern

_ESCAPED = frozenset(".+()|{}$")  # what means nothing in a pattern and something in a regular expression
_LETTERS = {"A": r"\A", "z": r"\Z", **{letter: f"\\{letter}" for letter in "dDsSwWbBafnrtv"}}
_SPACE = "\t\n\v\f\r \x85\xa0\u1680\u2028\u2029\u202f\u205f\u3000" + "".join(map(chr, range(0x2000, 0x200B)))
_PLAIN = re.compile(r"[^*\[\]?^\\]*").fullmatch


@dataclass(frozen=True)
class Pattern:
    """One pattern, cleaned; `exception` was written with a `!`. `line` counts from 1, 0 when it is from no file."""

    text: str
    exception: bool = False
    line: int = 0
    _match: Callable[[str], object] = field(default=re.compile("").fullmatch, compare=False, repr=False)

    def matches(self, path: str) -> bool:
        """Does it match all of the path?"""
        return bool(self._match(path))

    def __str__(self) -> str:
        return f"!{self.text}" if self.exception else self.text


# For each pattern: does it match the path or a directory above it?
Matched = tuple[bool, ...]


@dataclass(frozen=True)
class Matcher:
    """Patterns in their order: the last one that matches a path decides."""

    patterns: tuple[Pattern, ...]
    file: str = ""

    @property
    def has_exceptions(self) -> bool:
        """Is there a `!` pattern?"""
        return any(pattern.exception for pattern in self.patterns)

    def match(self, path: str, above: Matched | None) -> tuple[bool, Matched]:
        """Is the path matched? `above` is what this returned for the directory it is in; None at the top."""
        matched = False
        results = []
        for number, pattern in enumerate(self.patterns):
            hit = above is not None and above[number]
            if not hit:
                # As Docker: a pattern that could change nothing is not asked, and then counts as not matching.
                hit = pattern.exception == matched and pattern.matches(path)
            results.append(hit)
            if hit:
                matched = not pattern.exception
        return matched, tuple(results)

    def decide(self, path: str) -> tuple[bool, Matched | None, Pattern | None]:
        """The same for a path alone, and which pattern decided. The root, "", is never matched."""
        matched, results = False, None
        for above in (*_parents(path), path) if path else ():
            matched, results = self.match(above, results)
        hits = [pattern for pattern, hit in zip(self.patterns, results or (), strict=False) if hit]
        return matched, results, hits[-1] if hits else None

    def reaches_into(self, directory: str) -> bool:
        """Can there be something below a matched directory that an exception takes out again?"""
        exceptions = [pattern.text for pattern in self.patterns if pattern.exception]
        plain = [text.removesuffix("/**").removesuffix("/*") for text in exceptions]
        if not all(map(_PLAIN, plain)):
            return True
        return any(f"{text}/".startswith(f"{directory}/") for text in plain)


def _parents(path: str) -> list[str]:
    parts = path.split("/")[:-1]
    return ["/".join(parts[: number + 1]) for number in range(len(parts))]


def read_ignore_file(name: str, data: bytes) -> Matcher:
    """A .dockerignore, called `name` in messages. Raises DockerfileError for a malformed pattern."""
    patterns = []
    text = data.removeprefix(b"\xef\xbb\xbf").decode("utf-8", "surrogateescape")
    for number, line in enumerate(text.split("\n"), 1):
        if line.startswith("#") or not (stripped := _strip(line)):
            continue
        exception = stripped.startswith("!")
        body = _strip(stripped[exception:])
        if body:
            body = _clean(body)
            if len(body) > 1:
                body = body.removeprefix("/")
        column = line.index(stripped[0]) + 1
        if not body:
            raise DockerfileError(
                name, number, column, "'!' takes nothing out again", "write the path after it"
            )
        try:
            patterns.append(_pattern(f"!{body}" if exception else body, number))
        except BadPattern as error:
            hint = "write [ as \\[ and \\ as \\\\ where they mean themselves"
            raise DockerfileError(name, number, column, str(error), hint) from None
    return Matcher(tuple(patterns), name)


def matcher(patterns: Iterable[str]) -> Matcher | None:
    """The patterns of --exclude or --parents; None for no patterns at all. Raises BadPattern."""
    found = tuple(_pattern(text, 0) for text in map(_strip, patterns) if text)
    return Matcher(found) if found else None


def _strip(text: str) -> str:
    """As Go's strings.TrimSpace."""
    return text.strip(_SPACE)


def _clean(path: str) -> str:
    """As Go's filepath.Clean."""
    path = posixpath.normpath(path)
    return path[1:] if path.startswith("//") else path


def _pattern(text: str, line: int) -> Pattern:
    text = _clean(text)
    exception = text.startswith("!")
    body = text[exception:]
    if not body:
        raise BadPattern(text, 0)
    compile_pattern(body)  # Docker refuses what Match refuses, though it then matches otherwise
    return Pattern(body, exception, line, _compiled(body))


def _compiled(pattern: str) -> Callable[[str], object]:
    """What moby/patternmatcher makes of a pattern: `**` is any number of directories."""
    expression: list[str] = []
    in_class = False
    wild = suffix = False  # a pattern without wildcards, and `**/literal`, are compared as they stand
    at = number = 0
    while at < len(pattern):
        char = pattern[at]
        at += 1
        if pattern.startswith("**", at - 1):
            at += 1
            at += pattern[at : at + 1] == "/"
            ends = at == len(pattern)
            expression.append(".*" if ends else "(?:.*/)?")
            if ends and not wild:
                # `dir/**` compares the beginning of a path, names with newlines included.
                return re.compile(re.escape(pattern[: pattern.index("**")]) + ".*", re.DOTALL).fullmatch
            suffix = number == 0
            wild = True
        else:
            if char in {"*", "?"}:
                expression.append("[^/]*" if char == "*" else "[^/]")
                wild, suffix = True, False
            elif char == "\\":
                if at < len(pattern):
                    expression.append(_escape(pattern, at))
                    at += 1
                wild, suffix = True, False
            elif char in {"[", "]"}:
                # Within a class a `[` means itself, which Python's re wants to be said.
                expression.append("\\[" if char == "[" and in_class else char)
                in_class = char == "["
                wild, suffix = True, False
            else:
                expression.append(f"\\{char}" if char in _ESCAPED else _as_it_is(char))
        number += 1
    if suffix:
        rest = pattern[2:]
        start = r"(?:.*/)?" if rest.startswith("/") else ".*"
        return re.compile(start + re.escape(rest.removeprefix("/")), re.DOTALL).fullmatch
    if not wild:
        return re.compile(re.escape(pattern)).fullmatch
    whole = "".join(expression)
    try:
        compiled = re.compile(whole).fullmatch
        return compile_linear(whole).matches if backtracks(whole) else compiled
    except re.error:
        raise BadPattern(pattern, 0) from None


def _escape(pattern: str, at: int) -> str:
    """`\\x` in Go's regular expressions, where a letter may have a meaning."""
    char = pattern[at]
    if char.isascii() and char.isalnum():
        if char not in _LETTERS:
            raise BadPattern(pattern, at - 1)
        return _LETTERS[char]
    return re.escape(char)


def _as_it_is(char: str) -> str:
    """What Python's re, and not Go's, would take for something else."""
    return char if char.isalnum() or char in "^-!/_:,=@%<>'\"`;" else re.escape(char)
