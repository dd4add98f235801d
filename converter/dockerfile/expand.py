"""Variable expansion as BuildKit does it (frontend/dockerfile/shell/lex.go): a shell's, but for what it leaves out.

Where an instruction's words are expanded is decided by stages.py and the modules beside it, not here.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass, field

from converter.dockerfile.patterns import PatternError, replace, trim_prefix, trim_suffix

# unicode.IsSpace of Go, which knows fewer characters than str.isspace
SPACE = "\t\n\v\f\r \x85\xa0\u1680\u2028\u2029\u202f\u205f\u3000" + "".join(map(chr, range(0x2000, 0x200B)))
_SPACES = frozenset(SPACE)
_DEEPEST = 100  # ${a:-${b:-…}}
_LONGEST = 16 << 20  # characters of one result
_MOST = 64 << 20  # characters of all results of one Dockerfile


class ExpansionError(ValueError):
    """A word that cannot be expanded; the text says why. `missing` is the variable that `${x:?}` wants to be set."""

    def __init__(self, text: str, missing: str = "") -> None:
        super().__init__(text)
        self.missing = missing


@dataclass
class Expander:
    """Expands the words of one Dockerfile, and counts what comes out: nested values grow beyond all bounds.

    `escape` is the Dockerfile's escape character.
    """

    escape: str = "\\"
    made: int = field(default=0, init=False)

    def word(self, text: str, env: Mapping[str, str]) -> str:
        """All of `text` as one word. Raises ExpansionError."""
        return self._counted(_Lexer(text, env, self.escape).whole())

    def words(self, text: str, env: Mapping[str, str]) -> list[str]:
        """`text` split at the spaces that are not quoted, those from variables too. Raises ExpansionError."""
        words = _Lexer(text, env, self.escape, splits=True).split()
        self._counted("".join(words))
        return words

    def heredoc(self, text: str, env: Mapping[str, str]) -> str:
        """The content of a here-document of COPY or ADD: quotes stand for themselves, and the escape is a backslash."""
        return self._counted(_Lexer(text, env, "\\", keeps_quotes=True).whole())

    def _counted(self, text: str) -> str:
        self.made += len(text)
        if self.made > _MOST:
            raise ExpansionError(f"the values of this Dockerfile are longer than {_MOST >> 20} MiB together")
        return text


def split_raw(text: str, *, raw: bool) -> list[str]:
    """The words of `text` with nothing expanded; `raw`: quotes and escapes stay. Raises ExpansionError."""
    return _Lexer(text, {}, "\\", splits=True, raw_quotes=raw, raw_escapes=raw, skips_unset=True).split()


def split_heredoc_word(text: str, *, raw_quotes: bool) -> list[str]:
    """What follows `<<`, as words, without its quotes or with them. Raises ExpansionError."""
    return _Lexer(text, {}, "\\", splits=True, raw_quotes=raw_quotes, skips_unset=True).split()


class _Lexer:
    """One pass over one text. `position` is the next character to read."""

    def __init__(
        self,
        text: str,
        env: Mapping[str, str],
        escape: str,
        *,
        splits: bool = False,
        keeps_quotes: bool = False,
        raw_quotes: bool = False,
        raw_escapes: bool = False,
        skips_unset: bool = False,
    ) -> None:
        self.text = text.removeprefix("\ufeff")
        self.env = env
        self.escape = escape
        self.splits = splits
        self.keeps_quotes = keeps_quotes
        self.raw_quotes = raw_quotes
        self.raw_escapes = raw_escapes
        self.skips_unset = skips_unset
        self.position = 0
        self.depth = 0
        self.length = 0

    def whole(self) -> str:
        if not self._is_special():
            return self.text
        return self._process()[0]

    def split(self) -> list[str]:
        return self._process()[1]

    def _is_special(self) -> bool:
        quotes = not self.keeps_quotes and ("'" in self.text or '"' in self.text)
        return quotes or "$" in self.text or self.escape in self.text

    def _process(self) -> tuple[str, list[str]]:
        try:
            return self._until("", self.raw_escapes)
        except (ExpansionError, PatternError) as error:
            shown = self.text if len(self.text) <= 80 else f"{self.text[:80]}…"
            missing = error.missing if isinstance(error, ExpansionError) else ""
            raise ExpansionError(f'failed to process "{shown}": {error}', missing) from None

    def _peek(self) -> str:
        return self.text[self.position : self.position + 1]

    def _next(self) -> str:
        character = self.text[self.position : self.position + 1]
        self.position += 1
        return character

    def _at_end(self) -> bool:
        return self.position >= len(self.text)

    def _grow(self, text: str) -> str:
        self.length += len(text)
        if self.length > _LONGEST:
            raise ExpansionError(f"its value is longer than {_LONGEST >> 20} MiB")
        return text

    def _until(self, stop: str, raw_escapes: bool) -> tuple[str, list[str]]:
        """Everything up to `stop`, which is read too ("": the end), as one word and as words."""
        before, self.raw_escapes = self.raw_escapes, raw_escapes
        try:
            return self._read_until(stop)
        finally:
            self.raw_escapes = before

    def _read_until(self, stop: str) -> tuple[str, list[str]]:
        result: list[str] = []
        words = _Words() if self.splits and not stop else None
        plain = _plain(self.escape, stop, self.keeps_quotes)
        while not self._at_end():
            if match := plain.match(self.text, self.position):
                self.position = match.end()
                result.append(match[0])
                if words:
                    words.add(match[0])
                continue
            character = self._peek()
            if character == stop:
                self.position += 1
                return "".join(result), []
            if character == "$" or (character in "'\"" and not self.keeps_quotes):
                made = {"$": self._dollar, "'": self._single_quotes, '"': self._double_quotes}[character]()
                result.append(self._grow(made))
                if words:
                    (words.add if character == "$" else words.add_raw)(made)
                continue
            self.position += 1
            if character == self.escape:
                kept = character if self.raw_escapes else ""
                character = kept + self._next()
            result.append(character)
            if words:
                words.add_raw(character)
        if stop:
            raise ExpansionError(f"unexpected end of statement while looking for matching {stop}")
        return "".join(result), words.all() if words else []

    def _single_quotes(self) -> str:
        end = self.text.find("'", self.position + 1)
        if end < 0:
            raise ExpansionError("unexpected end of statement while looking for matching single-quote")
        start, self.position = self.position, end + 1
        return self.text[start : end + 1] if self.raw_quotes else self.text[start + 1 : end]

    def _double_quotes(self) -> str:
        self.position += 1
        result = ['"' if self.raw_quotes else ""]
        plain = _quoted(self.escape)
        while not self._at_end():
            if match := plain.match(self.text, self.position):
                self.position = match.end()
                result.append(match[0])
                continue
            character = self._peek()
            if character == '"':
                self.position += 1
                result.append('"' if self.raw_quotes else "")
                return "".join(result)
            if character == "$":
                result.append(self._grow(self._dollar()))
                continue
            self.position += 1
            if character == self.escape:
                if self.raw_escapes:
                    result.append(character)
                if self._at_end():
                    continue
                if self._peek() in ('"', "$", self.escape):
                    character = self._next()
            result.append(character)
        raise ExpansionError("unexpected end of statement while looking for matching double-quote")

    def _dollar(self) -> str:
        self.position += 1
        if self._peek() != "{":
            name = self._name()
            if not name:
                return "$"
            value = self.env.get(name)
            return ("$" + name if self.skips_unset else "") if value is None else value
        self.position += 1
        if self._at_end():
            raise ExpansionError("syntax error: missing '}'")
        if self._peek() in "{}:":
            raise ExpansionError("syntax error: bad substitution")
        self.depth += 1
        if self.depth > _DEEPEST:
            raise ExpansionError(f"${{…}} is nested more than {_DEEPEST} deep")
        try:
            return self._braces(self._name())
        finally:
            self.depth -= 1

    def _braces(self, name: str) -> str:
        """`${name` is read; what follows decides."""
        if self._at_end():
            raise ExpansionError("syntax error: missing '}'")
        value = self.env.get(name)
        operator = self._next()
        if operator == "}":
            return (f"${{{name}}}" if self.skips_unset else "") if value is None else value
        if operator == "/":
            return self._replaced(name, value)
        modifier = operator
        if operator == ":":
            operator = self._next()
            modifier += operator
        elif operator not in "+-?#%":
            raise ExpansionError(f"unsupported modifier ({modifier}) in substitution")
        word = self._inner("}", operator in ("#", "%"), "}")
        if value is None and self.skips_unset:
            return f"${{{name}{modifier}{word}}}"
        missing = value is None or (modifier[0] == ":" and not value)
        match operator:
            case "-":
                return word if missing or value is None else value
            case "+":
                return "" if missing else word
            case "?":
                if value is None or missing:
                    state = "unset" if value is None else "empty"
                    raise ExpansionError(f"{name}: {word or f'is not allowed to be {state}'}", name)
                return value
            case "#" | "%":
                longest = word.startswith(operator)
                trim = trim_prefix if operator == "#" else trim_suffix
                return trim(word[1:] if longest else word, value or "", longest=longest)
        raise ExpansionError(f"unsupported modifier ({modifier}) in substitution")

    def _replaced(self, name: str, value: str | None) -> str:
        every = self._peek() == "/"
        if every:
            self.position += 1
        pattern = self._inner("/", True, "/' in ${}")
        replacement = self._inner("}", True, "}")
        if value is None and self.skips_unset:
            return f"${{{name}/{pattern}/{replacement}}}"
        # Each match may bring the whole replacement: what comes out is bounded before it is made.
        if (len(value or "") + 1) * (len(replacement) + 1) > _LONGEST * 16:
            raise ExpansionError(f"its value is longer than {_LONGEST >> 20} MiB")
        return replace(pattern, value or "", replacement, every=every)

    def _inner(self, stop: str, raw_escapes: bool, missing: str) -> str:
        try:
            return self._until(stop, raw_escapes)[0]
        except ExpansionError:
            if self._at_end():
                close = "'" if len(missing) == 1 else ""
                raise ExpansionError(f"syntax error: missing '{missing}{close}") from None
            raise

    def _name(self) -> str:
        """A name, a number or one special parameter; "" when there is none."""
        match = _NAME.match(self.text, self.position)
        if match is None:
            return ""
        self.position = match.end()
        return match[0]


# Digits first: `$1x` is $1 and an x. `[^\W\d]` are letters (of any script) and `_`.
_NAME = re.compile(r"\d+|[@*#?\-$!]|[^\W\d]\w*")


class _Words:
    """Words as they grow: spaces end one, unless they were quoted."""

    def __init__(self) -> None:
        self.done: list[str] = []
        self.current: list[str] = []

    def add(self, text: str) -> None:
        """Text whose spaces end words."""
        start = 0
        for at, character in enumerate(text):
            if character in _SPACES:
                if at > start:
                    self.current.append(text[start:at])
                start = at + 1
                self._end()
        if start < len(text):
            self.current.append(text[start:])

    def add_raw(self, text: str) -> None:
        """Text that was quoted or escaped."""
        if text:
            self.current.append(text)

    def _end(self) -> None:
        if self.current:
            self.done.append("".join(self.current))
            self.current = []

    def all(self) -> list[str]:
        self._end()
        return self.done


_patterns: dict[tuple[str, str, bool], re.Pattern[str]] = {}


def _plain(escape: str, stop: str, keeps_quotes: bool) -> re.Pattern[str]:
    """Characters that mean nothing outside quotes."""
    key = (escape, stop, keeps_quotes)
    if key not in _patterns:
        special = re.escape(f"${escape}{stop}") + ("" if keeps_quotes else "'\"")
        _patterns[key] = re.compile(f"[^{special}]+")
    return _patterns[key]


def _quoted(escape: str) -> re.Pattern[str]:
    """Characters that mean nothing inside double quotes."""
    key = (escape, '"', True)
    if key not in _patterns:
        _patterns[key] = re.compile(f'[^{re.escape(escape)}$"]+')
    return _patterns[key]
