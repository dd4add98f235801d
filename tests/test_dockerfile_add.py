"""ADD: archives that are unpacked, URLs and git repositories that are fetched, from a server on loopback."""

from __future__ import annotations

import bz2
import gzip
import hashlib
import http.server
import io
import lzma
import os
import stat
import subprocess
import tarfile
import threading
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
import zstandard

from converter.dockerfile.copying import fingerprint, lay_out, put, select
from converter.dockerfile.layout import LaidOut
from converter.dockerfile.model import Copy, DockerfileError
from converter.dockerfile.owners import resolve_owner
from converter.dockerfile.repository import Repository, parse_repository
from tests import hostile_tar
from tests.test_dockerfile_copying import ROOT, Build, Files, listed, make, step


@pytest.fixture
def build(tmp_path: Path) -> Build:
    return Build(tmp_path)


def add(*sources: str, **more: object) -> Copy:
    return step(*sources, add=True, **more)  # type: ignore[arg-type]


def tar(*members: tuple[str, str, str], uid: int = 0) -> bytes:
    """An archive; a member is a name, its kind and its content or link."""
    kinds = {
        "file": tarfile.REGTYPE,
        "dir": tarfile.DIRTYPE,
        "symlink": tarfile.SYMTYPE,
        "hardlink": tarfile.LNKTYPE,
        "fifo": tarfile.FIFOTYPE,
    }
    made = io.BytesIO()
    with tarfile.open(fileobj=made, mode="w") as archive:
        for name, kind, content in members:
            info = tarfile.TarInfo(name)
            info.type = kinds[kind]
            info.mode = 0o755 if kind == "dir" else 0o640
            info.uid = info.gid = uid
            info.mtime = 10**9
            if kind in {"symlink", "hardlink"}:
                info.linkname = content
                archive.addfile(info)
            else:
                info.size = len(content)
                archive.addfile(info, io.BytesIO(content.encode()))
    return made.getvalue()


ARCHIVE = tar(
    ("top/", "dir", ""), ("top/x", "file", "x"), ("implied/y", "file", "y"), ("link", "symlink", "top")
)
UNPACKED: Files = {"d/top/x": "x", "d/implied/y": "y", "d/link": ("->", "top")}


@pytest.mark.parametrize(
    "compress",
    [bytes, gzip.compress, bz2.compress, lzma.compress, zstandard.ZstdCompressor().compress],
    ids=["plain", "gzip", "bzip2", "xz", "zstd"],
)
def test_archives_are_unpacked_whatever_their_name(build: Build, compress: Callable[[bytes], bytes]) -> None:
    make(build.context, {"file.dat": compress(ARCHIVE)})
    assert build.copy(add("file.dat", to="/d")) == UNPACKED
    assert (build.root / "d/top/x").stat().st_mtime == 10**9
    assert stat.S_IMODE((build.root / "d/top/x").stat().st_mode) == 0o640
    assert stat.S_IMODE((build.root / "d/implied").stat().st_mode) == 0o755


@pytest.mark.parametrize(
    "data",
    [
        b"",
        b"text",
        bytes(1024),
        gzip.compress(b"text"),
        gzip.compress(b""),
        b"\x1f\x8b broken",
        ARCHIVE[:300],
    ],
    ids=["empty", "text", "zeros", "gzip", "empty gzip", "broken gzip", "half a header"],
)
def test_what_is_no_archive_is_copied(build: Build, data: bytes) -> None:
    make(build.context, {"file.tar.gz": data})
    build.copy(add("file.tar.gz", to="/d/"))
    assert (build.root / "d/file.tar.gz").read_bytes() == data


def test_what_is_not_unpacked(build: Build) -> None:
    make(build.context, {"a.tar": ARCHIVE, "dir/b.tar": ARCHIVE})
    build.copy(step("a.tar"))
    build.copy(add("a.tar", unpack=False, to="/e/"))
    build.copy(add("dir", to="/f/"))
    for path in ("d/a.tar", "e/a.tar", "f/b.tar"):
        assert (build.root / path).read_bytes() == ARCHIVE
    assert build.copy(step("a.tar", unpack=True, to="/g"))["g/top/x"] == "x"


def test_several_archives_and_files(build: Build) -> None:
    make(build.context, {"a.tar": ARCHIVE, "b.tar": tar(("top/z", "file", "z")), "c.txt": "c"})
    assert build.copy(add("*", to="/d/")) == UNPACKED | {"d/top/z": "z", "d/c.txt": "c"}


@pytest.mark.parametrize(
    ("before", "members", "expected"),
    [
        # What was there is replaced, but for directories.
        ({"d/x": "old"}, [("x", "file", "new")], {"d/x": "new"}),
        ({"d/x/y": "old"}, [("x", "file", "new")], {"d/x": "new"}),
        ({"d/x": "old"}, [("x", "dir", ""), ("x/y", "file", "y")], {"d/x/y": "y"}),
        ({"d/x/y": "old"}, [("x", "dir", ""), ("x/z", "file", "z")], {"d/x/y": "old", "d/x/z": "z"}),
        ({"d/x": ("->", "y"), "d/y": "y"}, [("x", "file", "new")], {"d/x": "new", "d/y": "y"}),
        ({"d/x": ("->", "y"), "d/y": None}, [("x", "dir", "")], {"d/x": None, "d/y": None}),
        # Links on the way lead no further than to the directory, as it is Docker's root meanwhile.
        ({"d/x": ("->", "/y"), "d/y": None, "y/keep": "k"}, [("x/z", "file", "z")],
         {"d/x": ("->", "/y"), "y/keep": "k", "d/y/z": "z"}),
        ({"d/etc": None}, [("x", "symlink", "/etc"), ("x/y/z", "file", "z")], {
            "d/x": ("->", "/etc"), "d/etc/y/z": "z"}),
        ({}, [("x", "symlink", "../../.."), ("x/z", "file", "z")], {"d/x": ("->", "../../.."), "d/z": "z"}),
        ({}, [("x", "symlink", "/"), ("x/../../z", "file", "z")], {"d/x": ("->", "/"), "d/z": "z"}),
        ({}, [("../../z", "file", "z")], {"d/z": "z"}),
        ({}, [("/z", "file", "z")], {"d/z": "z"}),
        ({}, [("./", "dir", ""), ("./z", "file", "z")], {"d/z": "z"}),
        ({}, [("a", "file", "1"), ("b", "hardlink", "a"), ("a", "file", "2")], {"d/a": "2", "d/b": "1"}),
        ({"d/a": "old", "d/b": "b"}, [("b", "hardlink", "/a")], {"d/a": "old", "d/b": "old"}),
        ({}, [("l", "symlink", "/x"), ("m", "hardlink", "l")], {"d/l": ("->", "/x"), "d/m": ("->", "/x")}),
        # Whiteouts mean something in layers only.
        ({"d/x": "x"}, [(".wh.x", "file", "")], {"d/x": "x", "d/.wh.x": ""}),
        ({}, [("new\nline", "file", "n"), ("-rf", "file", "r")], {"d/new\nline": "n", "d/-rf": "r"}),
    ],
)  # fmt: skip
def test_members(build: Build, before: Files, members: list[tuple[str, str, str]], expected: Files) -> None:
    make(build.root, before)
    make(build.context, {"a.tar": tar(*members)})
    assert build.copy(add("a.tar")) == expected


@pytest.mark.parametrize(
    ("data", "text"),
    [
        (ARCHIVE[:1800], "the archive is cut short"),
        (gzip.compress(ARCHIVE)[:-20], "cut short"),
        (hostile_tar.entry(name=b"a") + b"x" * 512, "wrong checksum"),
        (tar(("b", "hardlink", "nothing")), "cannot copy"),
        (tar(("b", "hardlink", "../../../etc/passwd")), "cannot copy"),
        (
            tar(("x", "symlink", "/etc"), ("x/z", "file", "z")),
            "goes through the link 'x', which leads nowhere",
        ),
        (
            tar(("x", "symlink", "y"), ("x/y/z", "file", "z")),
            "goes through the link 'x', which leads nowhere",
        ),
        (tar(("x", "symlink", "x"), ("x/z", "file", "z")), "too many links"),
    ],
    ids=["cut", "cut gzip", "damaged", "no such file", "out", "dangling", "dangling above", "loop"],
)
def test_damaged_archives(build: Build, data: bytes, text: str) -> None:
    make(build.context, {"a.tar": data})
    with pytest.raises(DockerfileError) as caught:
        build.copy(add("a.tar"))
    assert str(caught.value).startswith("Dockerfile:7:1: ")
    assert text in str(caught.value)


def test_a_destination_that_is_a_file(build: Build) -> None:
    make(build.context, {"a.tar": ARCHIVE})
    make(build.root, {"d": "file"})
    with pytest.raises(DockerfileError, match="/d is not a directory"):
        build.copy(add("a.tar", to="/d"))


@pytest.mark.skipif(not ROOT, reason="owners need root")
def test_members_keep_their_owners(build: Build) -> None:
    make(build.context, {"a.tar": tar(("x", "file", "x"), ("y/z", "file", "z"), uid=1234)})
    build.copy(add("a.tar"), (33, 33))
    owners = {str(path.relative_to(build.root)): path.stat().st_uid for path in build.root.rglob("*")}
    assert owners == {"d": 33, "d/x": 1234, "d/y": 0, "d/y/z": 1234}


@pytest.mark.parametrize(("name", "mode"), [("./", 0o711), (".", 0o711), ("/", 0o755), ("../", 0o755)])
def test_the_member_that_is_the_directory_itself(build: Build, name: str, mode: int) -> None:
    make(build.context, {"a.tar": tar((name, "dir", ""))})
    make(build.root, {"d": None})
    (build.root / "d").chmod(0o711)
    build.copy(add("a.tar"))
    assert stat.S_IMODE((build.root / "d").stat().st_mode) == mode


def test_a_sparse_member(build: Build) -> None:
    data = hostile_tar.old_gnu([(1 << 20, 3)], (1 << 20) + 10, b"abc", name=b"s")
    make(build.context, {"a.tar": data + hostile_tar.END})
    build.copy(add("a.tar"))
    assert (build.root / "d/s").read_bytes() == bytes(1 << 20) + b"abc" + bytes(7)


def test_an_archive_laid_out(build: Build) -> None:
    make(build.context, {"a.tar.gz": gzip.compress(ARCHIVE)})
    copied = add("a.tar.gz")
    made = lay_out(select(copied, build.source(), build.spool()), copied, build.path / "out")
    assert made == (LaidOut("0.tar", "archive"),)
    assert (build.path / "out/0.tar").read_bytes() == ARCHIVE


class Server(http.server.ThreadingHTTPServer):
    """Answers by path: (status, headers, body); files below `directory` for all other paths."""

    answers: dict[str, tuple[int, dict[str, str], bytes]]
    directory: Path
    seen: list[tuple[str, str | None]]

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.server_port}"


class _Handler(http.server.SimpleHTTPRequestHandler):
    server: Server

    def __init__(self, *arguments: object, **options: object) -> None:
        super().__init__(*arguments, directory=str(arguments[2].directory))  # type: ignore[arg-type, attr-defined]

    def do_GET(self) -> None:
        self.server.seen.append((self.path, self.headers.get("Authorization")))
        if self.path not in self.server.answers:
            super().do_GET()
            return
        status, headers, body = self.server.answers[self.path]
        self.send_response(status)
        for name, value in headers.items():
            self.send_header(name, value)
        self.send_header("Content-Length", str(len(body) + (99 if "cut" in self.path else 0)))
        self.end_headers()
        self.wfile.write(body)

    def log_message(self, *arguments: object) -> None:
        """Quiet."""


@pytest.fixture
def server(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Server]:
    for name in ("http_proxy", "https_proxy", "HTTP_PROXY", "HTTPS_PROXY", "all_proxy", "ALL_PROXY"):
        monkeypatch.delenv(name, raising=False)
    running = Server.__new__(Server)
    running.answers, running.directory, running.seen = {}, tmp_path / "served", []
    running.directory.mkdir()
    Server.__init__(running, ("127.0.0.1", 0), _Handler)
    thread = threading.Thread(target=running.serve_forever, args=[0.02])
    thread.start()
    yield running
    running.shutdown()
    thread.join()
    running.server_close()


def test_a_url(build: Build, server: Server) -> None:
    server.answers = {
        "/a/file.tar?x=1": (200, {"Last-Modified": "Sun, 09 Sep 2001 01:46:40 GMT"}, ARCHIVE),
        "/": (200, {"Content-Disposition": 'attachment; filename="other"'}, b"root"),
        "/moved": (302, {"Location": "/a/file.tar?x=1"}, b""),
        "/a%20b": (200, {}, b"space"),
    }
    build.copy(add(f"{server.url}/a/file.tar?x=1"))
    made = build.root / "d/file.tar"
    assert made.read_bytes() == ARCHIVE
    assert made.stat().st_mtime == 10**9
    assert stat.S_IMODE(made.stat().st_mode) == 0o600
    build.copy(add(f"{server.url}/moved", to="/e", chmod="644"))
    assert (build.root / "e").read_bytes() == ARCHIVE
    assert stat.S_IMODE((build.root / "e").stat().st_mode) == 0o644
    assert build.copy(add(f"{server.url}/", f"{server.url}/a%20b", to="/f/"))["f/__unnamed__"] == "root"
    assert (build.root / "f/a b").read_text() == "space"
    assert (build.root / "f/a b").stat().st_mtime == 0


def test_a_url_with_a_login(build: Build, server: Server) -> None:
    server.answers = {
        "/x": (302, {"Location": f"http://localhost:{server.server_port}/y"}, b""),
        "/y": (200, {}, b"y"),
    }
    build.copy(add(f"{server.url.replace('//', '//user:pass@')}/x"))
    assert server.seen == [("/x", "Basic dXNlcjpwYXNz"), ("/y", None)]


def test_an_unpacked_url(build: Build, server: Server) -> None:
    server.answers = {"/a.tar": (200, {}, ARCHIVE)}
    assert build.copy(add(f"{server.url}/a.tar", unpack=True)) == UNPACKED


def test_a_checksum(build: Build, server: Server) -> None:
    server.answers = {"/x": (200, {}, b"content")}
    digest = hashlib.sha256(b"content").hexdigest()
    assert build.copy(add(f"{server.url}/x", checksum=f"sha256:{digest}")) == {"d/x": "content"}
    for checksum, text in (
        (f"sha256:{'0' * 64}", f"has the digest sha256:{digest}, not sha256:000"),
        ("sha256:12", "is no digest"),
        (digest, "is no digest"),
        ("md5:12", "is no digest"),
    ):
        with pytest.raises(DockerfileError, match=text):
            build.copy(add(f"{server.url}/x", checksum=checksum))


@pytest.mark.parametrize(
    ("path", "text"),
    [
        ("/none", "404 "),
        ("/file", "Redirection to url 'file:///etc/passwd' is not allowed"),
        ("/ftp", "leads on to 'ftp://"),
        ("/loop", "cannot fetch"),
        ("/cut", "cut short"),
    ],
)
def test_a_url_that_cannot_be_fetched(build: Build, server: Server, path: str, text: str) -> None:
    server.answers = {
        "/file": (302, {"Location": "file:///etc/passwd"}, b""),
        "/ftp": (302, {"Location": "ftp://127.0.0.1/x"}, b""),
        "/loop": (302, {"Location": "/loop"}, b""),
        "/cut": (200, {}, b"half"),
    }
    with pytest.raises(DockerfileError) as caught:
        build.copy(add(f"{server.url}{path}"))
    assert text in str(caught.value)
    assert listed(build.root) == {}


def test_copy_fetches_nothing(build: Build, server: Server) -> None:
    for source in (f"{server.url}/x", f"{server.url}/x.git", "git@127.0.0.1:x.git"):
        with pytest.raises(DockerfileError, match="write ADD instead"):
            build.copy(step(source))
    assert server.seen == []


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("https://host/a.git", Repository("https://host/a.git")),
        ("http://host/a.git#v1", Repository("http://host/a.git", "v1")),
        ("https://host/a.git#v1:sub/dir", Repository("https://host/a.git", "v1", "sub/dir")),
        ("https://host/a.git#:../sub", Repository("https://host/a.git", "", "sub")),
        ("git@host:a/b", Repository("git@host:a/b")),
        ("git@host:a/b.git#main:x", Repository("git@host:a/b.git", "main", "x")),
        ("ssh://git@host/a", Repository("ssh://git@host/a")),
        ("git://host/a#b", Repository("git://host/a", "b")),
        ("https://host/a", None),
        ("https://host/a.tar.gz", None),
        ("file:///a.git", None),
        ("ext::sh -c x", None),
        ("/a.git", None),
        ("a.git", None),
        ("-o@host:x", None),
    ],
)
def test_what_is_a_repository(text: str, expected: Repository | None) -> None:
    assert parse_repository(text) == expected


def git(path: Path, *arguments: str) -> str:
    """A git of our own, without this host's settings."""
    own = {"GIT_CONFIG_NOSYSTEM": "1", "GIT_CONFIG_GLOBAL": "/dev/null", "HOME": "/nonexistent"}
    who = ["-c", "user.name=n", "-c", "user.email=e@example.org", "-c", "init.defaultBranch=main"]
    done = subprocess.run(
        ["git", "-C", str(path), *who, *arguments],
        env=os.environ | own,
        capture_output=True,
        text=True,
        check=True,
    )
    return done.stdout.strip()


@pytest.fixture
def repository(tmp_path: Path, server: Server) -> dict[str, str]:
    """A repository served without a git of its own: its URL, its first commit."""
    work = make(
        tmp_path / "work",
        {"README": "1", "sub/x": "x", "link": ("->", "/etc/passwd"), "out": ("->", "../..")},
    )
    git(work, "init", "--quiet")
    (work / "README").chmod(0o755)
    git(work, "add", ".")
    git(work, "commit", "--quiet", "-m", "one")
    first = git(work, "rev-parse", "HEAD")
    git(work, "tag", "-m", "v1", "v1")
    (work / "README").write_text("2")
    git(work, "commit", "--quiet", "-am", "two")
    git(work, "branch", "other", first)
    git(work, "clone", "--quiet", "--bare", ".", str(server.directory / "r.git"))
    git(server.directory / "r.git", "update-server-info")
    return {"url": f"{server.url}/r.git", "first": first}


@pytest.mark.parametrize(
    ("ref", "readme"),
    [("", "2"), ("#main", "2"), ("#v1", "1"), ("#other", "1"), ("#refs/heads/other", "1"), ("#{first}", "1")],
)
def test_a_repository(build: Build, repository: dict[str, str], ref: str, readme: str) -> None:
    copied = add(repository["url"] + ref.format(**repository), to="/d")
    assert build.copy(copied) == {
        "d/README": readme,
        "d/sub/x": "x",
        "d/link": ("->", "/etc/passwd"),
        "d/out": ("->", "../.."),
    }
    assert stat.S_IMODE((build.root / "d/README").stat().st_mode) == 0o755
    assert stat.S_IMODE((build.root / "d").stat().st_mode) == 0o755
    assert build.fingerprint(copied) == build.fingerprint(copied)


def test_parts_of_a_repository(build: Build, repository: dict[str, str]) -> None:
    url = repository["url"]
    assert build.copy(add(f"{url}#:sub", to="/d/")) == {"d/x": "x"}
    made = build.copy(add(url, to="/e/", keep_git_dir=True))
    assert made["e/README"] == "2"
    assert "e/.git/HEAD" in made
    assert build.fingerprint(add(url)) != build.fingerprint(add(f"{url}#v1"))
    assert build.fingerprint(add(url, keep_git_dir=True)) != build.fingerprint(add(url))
    assert build.copy(add(url, to="/f/", exclude=("sub", "link", "out")))["f/README"] == "2"
    assert not (build.root / "f/sub").exists()


@pytest.mark.parametrize(
    ("source", "text"),
    [
        ("{url}#nothing", "cannot fetch 'nothing'"),
        ("{url}#--upload-pack=x", "is no name of a branch"),
        ("{url}#:none", "has no directory 'none'"),
        ("{url}#:README", "has no directory 'README'"),
        ("{url}#:out/etc", "has no directory 'out/etc'"),
        ("{url}x.git", "cannot fetch 'HEAD'"),
        ("{url}#0123456789012345678901234567890123456789", "0123456789"),
    ],
)
def test_a_repository_that_cannot_be_had(
    build: Build, repository: dict[str, str], source: str, text: str
) -> None:
    with pytest.raises(DockerfileError) as caught:
        build.copy(add(source.format(**repository)))
    assert str(caught.value).startswith("Dockerfile:7:1: ")
    assert text in str(caught.value)
    assert listed(build.root) == {}


def test_a_submodule_on_this_host_is_refused(build: Build, server: Server, tmp_path: Path) -> None:
    secret = make(tmp_path / "secret", {"s": "secret"})
    git(secret, "init", "--quiet")
    git(secret, "add", ".")
    git(secret, "commit", "--quiet", "-m", "s")
    work = make(tmp_path / "super", {"x": "x"})
    git(work, "init", "--quiet")
    git(work, "-c", "protocol.file.allow=always", "submodule", "--quiet", "add", str(secret), "sub")
    git(work, "add", ".")
    git(work, "commit", "--quiet", "-m", "x")
    git(work, "clone", "--quiet", "--bare", ".", str(server.directory / "super.git"))
    git(server.directory / "super.git", "update-server-info")
    with pytest.raises(DockerfileError, match="transport 'file' not allowed"):
        build.copy(add(f"{server.url}/super.git"))


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("0", (0, 0)),
        ("root", (0, 0)),
        ("1000", (1000, 1000)),
        ("1000:50", (1000, 50)),
        ("app", (101, 102)),
        ("app:www", (101, 33)),
        ("app:7", (101, 7)),
        ("app:none", (101, 102)),
        ("app:", (101, 102)),
        ("7:www", (7, 33)),
        (":www", (0, 33)),
        ("none", (0, 0)),
        ("linked:root", (5, 0)),
    ],
)
def test_owners_by_name(tmp_path: Path, text: str, expected: tuple[int, int]) -> None:
    make(tmp_path, {
        "etc/passwd": ("->", "/usr/passwd"),
        "usr/passwd": "root:x:0:0::/root:\napp:x:101:102::/:\nlinked:x:5:6\n",
        "etc/group": "root:x:0:\nwww:x:33:\n",
    })  # fmt: skip
    assert resolve_owner(text, tmp_path) == expected


def test_owners_where_there_is_no_passwd(tmp_path: Path) -> None:
    assert resolve_owner("app:www", tmp_path) == (0, 0)
    make(tmp_path, {"etc": ("->", "/../../../../etc")})
    assert resolve_owner("root:daemon", tmp_path) == (0, 0)


def test_the_same_archive_has_the_same_fingerprint_under_any_name(build: Build) -> None:
    make(build.context, {"a.tar": ARCHIVE, "b.tar": ARCHIVE})
    first, second = (
        fingerprint(select(add(name), build.source(), build.spool())) for name in ("a.tar", "b.tar")
    )
    assert first == second


def test_put_twice_is_the_same(build: Build) -> None:
    make(build.context, {"a.tar": ARCHIVE, "dir/x": "x"})
    for copied in (add("a.tar"), step("dir")):
        selection = select(copied, build.source(), build.spool())
        put(selection, copied, build.root, None)
        before = listed(build.root)
        put(selection, copied, build.root, None)
        assert listed(build.root) == before
