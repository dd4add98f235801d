"""Patterns: Go's filepath.Match, and .dockerignore as github.com/moby/patternmatcher has it."""

from __future__ import annotations

import pytest

from converter.dockerfile.ignore import Matcher, matcher, read_ignore_file
from converter.dockerfile.model import DockerfileError
from converter.dockerfile.wildcard import BadPattern, has_wildcards, matches


# From the tests of Go's path/filepath.
@pytest.mark.parametrize(
    ("pattern", "name", "expected"),
    [
        ("abc", "abc", True),
        ("*", "abc", True),
        ("*c", "abc", True),
        ("a*", "a", True),
        ("a*", "ab/c", False),
        ("a*/b", "abc/b", True),
        ("a*/b", "a/c/b", False),
        ("a*b*c*d*e*/f", "axbxcxdxe/f", True),
        ("a*b*c*d*e*/f", "axbxcxdxexxx/fff", False),
        ("a*b?c*x", "abxbbxdbxebxczzx", True),
        ("a*b?c*x", "abxbbxdbxebxczzy", False),
        ("ab[c]", "abc", True),
        ("ab[b-d]", "abc", True),
        ("ab[e-g]", "abc", False),
        ("ab[^c]", "abc", False),
        ("ab[^e-g]", "abc", True),
        ("a\\*b", "a*b", True),
        ("a\\*b", "ab", False),
        ("a?b", "a☺b", True),
        ("a[^a]b", "a☺b", True),
        ("a???b", "a☺b", False),
        ("[a-ζ]*", "α", True),
        ("*[a-ζ]", "A", False),
        ("a?b", "a/b", False),
        ("a*b", "a/b", False),
        ("[\\]a]", "]", True),
        ("[\\-]", "-", True),
        ("[x\\-]", "z", False),
        ("[\\-x]", "x", True),
        ("*x", "xxx", True),
        ("a*b", "a\nb", True),
        ("arr[[]0].txt", "arr[0].txt", True),
        ("[b-a]", "b", False),
        ("[^b-a]", "b", True),
        ("a[/]b", "a/b", True),
    ],
)
def test_wildcards(pattern: str, name: str, expected: bool) -> None:
    assert matches(pattern, name) is expected


@pytest.mark.parametrize(
    "pattern", ["[]a]", "[-]", "[x-]", "[-x]", "[a-b-c]", "[", "[^", "[^bc", "a[", "a[b", "\\", "a\\", "[a\\"]
)
def test_malformed_wildcards(pattern: str) -> None:
    with pytest.raises(BadPattern):
        matches(pattern, "a")


def test_what_is_a_wildcard() -> None:
    assert [has_wildcards(text) for text in ("a", "a*", "a?", "[a", "\\*", "\\\\*", "a\\")] == [
        False,
        True,
        True,
        True,
        False,
        True,
        False,
    ]


def ignored(patterns: list[str], path: str) -> bool:
    found = matcher(patterns)
    return found is not None and found.decide(path)[0]


# From the tests of moby/patternmatcher.
@pytest.mark.parametrize(
    ("pattern", "path", "expected"),
    [
        ("**", "file", True),
        ("**", "dir/file", True),
        ("**/", "dir/file", True),
        ("**/**", "dir/file", True),
        ("dir/**", "dir/file", True),
        ("dir/**", "dir/dir2/file", True),
        ("dir/**", "other/file", False),
        ("**/dir", "dir", True),
        ("**/dir", "a/dir", True),
        ("**/dir2/*", "dir/dir2/file", True),
        ("**/dir2/*", "dir/dir2/dir2/file", True),
        ("**/dir2/**", "dir/dir2/dir2/file", True),
        ("**file", "file", True),
        ("**file", "dir/file", True),
        ("**/file", "dir/file", True),
        ("**file", "dir/dir/file", True),
        ("**/file*", "dir/dir/file.txt", True),
        ("**/file*txt", "dir/dir/file.txt", True),
        ("**/file*.txt*", "dir/dir/file.txt", True),
        ("**/**/*.txt", "dir/dir/file.txt", True),
        ("**/**/*.txt2", "dir/dir/file.txt", False),
        ("**/*.txt", "file.txt", True),
        ("**/**/*.txt", "file.txt", True),
        ("a**/*.txt", "a/file.txt", True),
        ("a**/*.txt", "a/dir/file.txt", True),
        ("a**/*.txt", "a/dir/dir/file.txt", True),
        ("a/*.txt", "a/dir/file.txt", False),
        ("a/*.txt", "a/file.txt", True),
        ("a/*.txt**", "a/file.txt", True),
        ("a[b-d]e", "ae", False),
        ("a[b-d]e", "ace", True),
        ("a[^b-d]e", "aze", True),
        (".*", ".foo", True),
        (".*", "foo", False),
        ("abc.def", "abcdef", False),
        ("abc.def", "abcZdef", False),
        ("abc?def", "abcZdef", True),
        ("a\\\\", "a\\", True),
        ("**/foo/bar", "foo/bar", True),
        ("**/foo/bar", "dir/dir2/foo/bar", True),
        ("abc/**", "abc", False),
        ("abc/**", "abc/def/ghi", True),
        ("**/.foo", ".foo", True),
        ("**/.foo", "bar.foo", False),
        ("./bar.*", "bar.go", True),
        ("a(b)c/def", "a(b)c/def", True),
        ("a.|)$(}+{bc", "a.|)$(}+{bc", True),
        ("dist/*.whl", "dist/proxy.py-2.4.0rc3.dev36+g08acad9-py3-none-any.whl", True),
        ("*a", "b\na", True),
        ("set[[]*", "set[1]", True),
        ("a[[x]]*", "ax]b", True),
        ("[!a]", "a", True),
        # A directory that is matched has everything below it matched.
        ("docs", "docs/a/b", True),
        ("docs/*", "docs/a/b", True),
        ("*", "a/b", True),
        ("ocs", "docs", False),
    ],
)
def test_patterns(pattern: str, path: str, expected: bool) -> None:
    assert ignored([pattern], path) is expected


@pytest.mark.parametrize(
    ("patterns", "path", "expected"),
    [
        (["docs", "!docs/README.md"], "docs/README.md", False),
        (["docs", "!docs/README.md"], "docs/a", True),
        (["!docs/README.md", "docs"], "docs/README.md", True),
        (["*", "!src"], "src/a/b", False),
        (["*", "!src", "src/a"], "src/a/b", True),
        (["*", "!src", "src/a", "!src/a/b"], "src/a/b", False),
        (["**", "!util/docker/web"], "util/docker/web/foo", False),
        (["**", "!util/docker/web", "util/docker/web/foo"], "util/docker/web/foo", True),
        (["a/**", "!a/b/c"], "a/b/d", True),
        (["**/node_modules", "!vendor/**"], "vendor/node_modules/x", False),
        ([], "a", False),
    ],
)
def test_the_last_pattern_that_matches_decides(patterns: list[str], path: str, expected: bool) -> None:
    assert ignored(patterns, path) is expected


@pytest.mark.parametrize(
    ("patterns", "directory", "expected"),
    [
        (["a", "!a/b"], "a", True),
        (["a", "!a/b/**"], "a/b", True),
        (["a", "!b"], "a", False),
        (["a", "!ab"], "a", False),
        (["a", "!**/x"], "a", True),
    ],
)
def test_where_exceptions_reach(patterns: list[str], directory: str, expected: bool) -> None:
    found = matcher(patterns)
    assert found is not None
    assert found.reaches_into(directory) is expected


def texts(found: Matcher) -> list[tuple[str, int]]:
    return [(str(pattern), pattern.line) for pattern in found.patterns]


def test_a_file_of_patterns() -> None:
    data = b"\xef\xbb\xbf# comment\n\n /a/b/ \r\n\t!/c/../d\n #no-comment\n! e\n//f\n.\n../g\nh\xff\n"
    assert texts(read_ignore_file("x", data)) == [
        ("a/b", 3),
        ("!d", 4),
        ("#no-comment", 5),
        ("!e", 6),
        ("f", 7),
        (".", 8),
        ("../g", 9),
        ("h\udcff", 10),
    ]
    assert not read_ignore_file("x", b"# nothing\n").patterns


@pytest.mark.parametrize(
    ("data", "text"),
    [
        (b"a\n  [x\n", "f:2:3: malformed pattern '[x'; write ["),
        (b"a\\", "f:1:1: malformed pattern"),
        (b"a\n !\n", "f:2:2: '!' takes nothing out again; "),
    ],
)
def test_a_malformed_pattern_is_pointed_at(data: bytes, text: str) -> None:
    with pytest.raises(DockerfileError) as caught:
        read_ignore_file("f", data)
    assert str(caught.value).startswith(text)
