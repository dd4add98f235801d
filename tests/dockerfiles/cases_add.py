"""ADD: archives, URLs, git; WORKDIR; .dockerignore."""

# ruff: noqa: E501 -- Dockerfiles as they are written

from __future__ import annotations

import bz2
import gzip
import hashlib
import io
import lzma
import tarfile

import zstandard

from tests.dockerfiles.case import BUSYBOX, URL, Case, Context, File, Link


def _archive() -> bytes:
    """A tar with every kind of entry that an image's builder may unpack."""
    out = io.BytesIO()
    with tarfile.open(fileobj=out, mode="w", format=tarfile.PAX_FORMAT) as archive:

        def add(
            name: str,
            kind: bytes = tarfile.REGTYPE,
            content: bytes = b"",
            mode: int = 0o644,
            link: str = "",
            owner: int = 0,
            **pax: str,
        ) -> None:
            member = tarfile.TarInfo(name)
            member.type, member.size, member.mode, member.linkname = kind, len(content), mode, link
            member.uid = member.gid = owner
            member.mtime = 1_500_000_000
            member.devmajor, member.devminor = (1, 3) if kind == tarfile.CHRTYPE else (0, 0)
            member.pax_headers = {f"SCHILY.xattr.user.{key}": value for key, value in pax.items()}
            archive.addfile(member, io.BytesIO(content))

        add("top", content=b"top\n", mode=0o600, owner=1000)
        add("in", tarfile.DIRTYPE, mode=0o711, owner=5)
        add("in/file", content=b"file\n", mode=0o4755, owner=6)
        add("in/hard", tarfile.LNKTYPE, link="in/file", mode=0o4755, owner=6)
        add("in/soft", tarfile.SYMTYPE, link="file")
        add("in/abs", tarfile.SYMTYPE, link="/etc/passwd")
        add("in/fifo", tarfile.FIFOTYPE, mode=0o640)
        add("in/null", tarfile.CHRTYPE, mode=0o666)
        add("implied/dirs/file", content=b"implied\n", note="text")
        add("./dot/file", content=b"dot\n")
        add("top", content=b"twice\n", mode=0o640)
    return out.getvalue()


_TAR = _archive()
_ARCHIVES: Context = {
    "plain.tar": _TAR,
    "a.tar.gz": gzip.compress(_TAR, mtime=0),
    "a.tgz": gzip.compress(_TAR, mtime=0),
    "a.tar.xz": lzma.compress(_TAR),
    "a.tar.bz2": bz2.compress(_TAR),
    "a.tar.zst": zstandard.compress(_TAR),
    "no-suffix": gzip.compress(_TAR, mtime=0),
    "text.tar.gz": "not an archive\n",
    "text.gz": gzip.compress(b"only compressed\n", mtime=0),
    "empty.tar": b"",
    "file.txt": "file\n",
    "dir/inner.tar.gz": gzip.compress(_TAR, mtime=0),
    "dir/x": "x\n",
    "link.tar": Link("plain.tar"),
}

SERVED = {
    "file.txt": b"served\n",
    "archive.tar.gz": gzip.compress(_TAR, mtime=0),
    "page": b"<p>\n",
    "a b.txt": b"spaces\n",
}
_SUM = hashlib.sha256(SERVED["file.txt"]).hexdigest()
_WRONG_SUM = hashlib.sha256(b"other").hexdigest()

_KEPT: Context = {
    name: f"{name}\n"
    for name in (
        "a.txt", "b.md", "README.md", "keep.md", "node_modules/x/index.js", "src/main.c", "src/main.o", "src/deep/a.o", "src/deep/a.c", "src/.git/config",
        ".git/HEAD", "build/out", "build/keep/me", "build/keep/not", "secret/key", "tmp1", "tmp22", "log/a.log", "log/b/c.log", "#hash", "!bang", "docs/a.txt", "docs/b/a.txt", "vendor/v.txt", "x/vendor/v.txt",
    )
}  # fmt: skip


def _ignored(
    name: str, what: str, ignore: str, more: Context | None = None, file: str = "Dockerfile"
) -> Case:
    return Case(
        name, what, BUSYBOX + "COPY . /all\n", {**_KEPT, ".dockerignore": ignore, **(more or {})}, file=file
    )


CASES = (
    Case(
        "add-file",
        "files and directories, as COPY",
        BUSYBOX
        + r"""
ADD file.txt /a
ADD file.txt dir /b/
ADD dir /c
ADD *.txt /d/
ADD --chown=3:4 --chmod=600 file.txt /e
ADD ["file.txt", "/f g"]
""",
        _ARCHIVES,
    ),
    Case(
        "add-archive",
        "archives, plain and in every compression",
        BUSYBOX
        + r"""
ADD plain.tar /plain
ADD a.tar.gz /gz/
ADD a.tgz /tgz
ADD a.tar.xz /xz
ADD a.tar.bz2 /bz2
""",
        _ARCHIVES,
    ),
    Case("add-archive-zstd", "an archive in zstd", BUSYBOX + "ADD a.tar.zst /zst\n", _ARCHIVES),
    Case(
        "add-archive-not",
        "what is no archive whatever its name, and an archive whatever its name",
        BUSYBOX
        + r"""
ADD text.tar.gz /a/
ADD text.gz /b/
ADD empty.tar /c/
ADD no-suffix /d
ADD link.tar /e/
ADD plain.tar file.txt /f/
ADD *.t?z /g/
ADD dir /h
COPY a.tar.gz /i/
""",
        _ARCHIVES,
    ),
    Case(
        "add-archive-options",
        "archives with --chown and --chmod",
        BUSYBOX
        + r"""
ADD --chown=1:2 plain.tar /a
ADD --chown=1:2 a.tgz file.txt /c/
""",
        _ARCHIVES,
    ),
    Case("add-archive-chmod", "archives with --chmod", BUSYBOX + "ADD --chmod=700 plain.tar /b\n", _ARCHIVES),
    Case(
        "add-archive-existing",
        "archives over what is there, through links, into the root",
        BUSYBOX
        + r"""
RUN mkdir -p /a/in && echo old >/a/top && echo kept >/a/in/kept && echo old >/a/in/soft && chmod 700 /a && mkdir /real && ln -s /real /l && mkdir -p /real/dot
ADD plain.tar /a
ADD plain.tar /l
WORKDIR /w
ADD plain.tar .
ADD a.tgz /
""",
        _ARCHIVES,
    ),
    Case(
        "add-archive-through",
        "an archive's directory where a link is",
        BUSYBOX + "RUN mkdir /real /a && ln -s /real /a/implied\nADD plain.tar /a\n",
        _ARCHIVES,
        fails="",
    ),
    Case(
        "add-archive-file",
        "an archive onto a file",
        BUSYBOX + "RUN touch /x\nADD plain.tar /x\n",
        _ARCHIVES,
        fails="",
    ),
    Case(
        "add-url",
        "URLs to a file and into a directory; archives are kept; modes, owners, times",
        BUSYBOX
        + rf"""
ADD {URL}/file.txt /a
ADD {URL}/file.txt {URL}/page /b/
ADD {URL}/archive.tar.gz /c/
ADD --chmod=644 --chown=5:6 {URL}/file.txt /d/e/f
ADD --checksum=sha256:{_SUM} {URL}/file.txt /g
ADD {URL}/a%20b.txt /h/
ADD {URL}/file.txt?query=1 /i/
ADD {URL}/file.txt local /j/
ARG U={URL}
WORKDIR /k
ADD $U/file.txt .
ADD {URL}/file.txt renamed
""",
        {"local": "local\n"},
    ),
    Case(
        "add-url-checksum",
        "a URL with another digest",
        BUSYBOX + f"ADD --checksum=sha256:{_WRONG_SUM} {URL}/file.txt /a\n",
        fails="digest",
    ),
    Case("add-url-missing", "a URL that is not there", BUSYBOX + f"ADD {URL}/nowhere /a\n", fails="404"),
    Case(
        "add-url-no-name", "a URL without a name, into a directory", BUSYBOX + f"ADD {URL}/ /a/\n", fails=""
    ),
    Case(
        "add-git",
        "git: a branch, a tag, a subdirectory, with and without .git",
        BUSYBOX
        + rf"""
ADD {URL}/repo.git#main /default
ADD {URL}/repo.git#side /branch
ADD {URL}/repo.git#v1 /tag
ADD {URL}/repo.git#main:sub /below/
ADD --chown=3:4 {URL}/repo.git#main /owned
""",
    ),
    Case(
        "add-git-default",
        "git: the default branch; .git kept",
        BUSYBOX
        + rf"""
ADD {URL}/repo.git /default
ADD --keep-git-dir=true {URL}/repo.git#v1 /kept
RUN ls /kept/.git/HEAD >/head && rm -r /kept/.git
""",
    ),
    Case(
        "copy-flag-of-add",
        "a flag that COPY does not have",
        BUSYBOX + f"COPY --checksum=sha256:{_SUM} a /\n",
        fails="checksum",
    ),
    Case("copy-url", "COPY of a URL", BUSYBOX + f"COPY {URL}/file.txt /a\n", fails="URL"),
    Case(
        "workdir",
        "relative, with variables, quotes, slashes; through links; made with their owner",
        BUSYBOX
        + r"""
WORKDIR /a
WORKDIR b
WORKDIR ../c/./d/
ENV D=/env/dir E=tail
WORKDIR $D/${E:-x}
RUN pwd >pwd
WORKDIR "/quo ted"
WORKDIR un quoted
RUN mkdir /real && ln -s /real /link
WORKDIR /link/below
RUN pwd >pwd; pwd -P >>pwd
USER 1000:1001
WORKDIR /mine/deep
RUN touch here 2>/dev/null && echo yes >/tmp/w || echo no >/tmp/w
USER daemon
WORKDIR sub
WORKDIR /etc
WORKDIR /'single'
WORKDIR ~
USER root
WORKDIR /mine/root
""",
    ),
    Case("workdir-none", "no WORKDIR; the base's", BUSYBOX + "RUN pwd >/cwd\nCOPY x .\n", {"x": "x"}),
    Case("workdir-file", "WORKDIR where a file is", BUSYBOX + "RUN touch /x\nWORKDIR /x/y\n", fails=""),
    Case(
        "workdir-over-file",
        "WORKDIR that is a file",
        BUSYBOX + "RUN touch /x\nWORKDIR /x\nRUN true\n",
        fails="",
    ),
    Case("workdir-scratch", "WORKDIR in an empty image, nothing else", "FROM scratch\nWORKDIR /a/b\n"),
    Case("workdir-windows", "WORKDIR as on another system", BUSYBOX + "WORKDIR C:\\dir\nRUN pwd >/cwd\n"),
    _ignored(
        "ignore-patterns",
        "patterns: names, wildcards, directories, comments, blanks",
        "# comment\n\n*.md\n  tmp?  \n*/*.o\n/build\nnode_modules/\n./secret\n.git\n#hash\n",
    ),
    _ignored(
        "ignore-double-star",
        "** at the start, in the middle, at the end",
        "**/*.o\n**/.git\nbuild/**\nlog/**/c.log\n**/vendor\n",
    ),
    _ignored(
        "ignore-exceptions",
        "exceptions, and their order",
        "*.md\n!README.md\nbuild\n!build/keep/me\nsrc/*\n!src/deep\nsrc/deep/*.o\n!keep.md\nkeep.md\n",
    ),
    _ignored("ignore-all", "everything but what is named", "*\n!src\n!docs/b\n!.git/HEAD\n"),
    _ignored("ignore-all-deep", "everything but one, with **", "**\n!**/*.txt\n"),
    _ignored("ignore-again", "what is excluded, excepted and excluded once more", "**\n!**/*.txt\nvendor\n"),
    _ignored(
        "ignore-odd",
        "sets, ranges, escapes, dots, parents",
        "[ab].*\ntmp[0-9][0-9]\n\\#hash\n\\!bang\nsrc/../docs/b\nlog/.\n../x\n.\n",
    ),
    _ignored("ignore-itself", "itself, the Dockerfile", ".dockerignore\nDockerfile\n*.txt\n"),
    _ignored("ignore-crlf", "line ends of another system, a byte order mark", "\ufeff*.md\r\nbuild\r\n"),
    _ignored(
        "ignore-own",
        "a Dockerfile's own",
        "*.txt\n",
        {"Other.Dockerfile": BUSYBOX + "COPY . /all\n", "Other.Dockerfile.dockerignore": "*.md\n"},
        file="Other.Dockerfile",
    ),
    Case(
        "ignore-copied",
        "an ignored file that is copied",
        BUSYBOX + "COPY key /\n",
        {"key": "k", ".dockerignore": "key\n"},
        fails="key",
    ),
    Case(
        "ignore-below",
        "an ignored directory, of which one file is copied; wildcards see none of it",
        BUSYBOX + "COPY d/keep /a\nCOPY d /b\nCOPY d/* /c/\nCOPY *.txt /d/\n",
        {
            "d/keep": "keep\n",
            "d/drop": "drop\n",
            "d/s/drop": "drop\n",
            "one.txt": "1",
            "two.txt": "2",
            ".dockerignore": "d\n!d/keep\ntwo.txt\n",
        },
    ),
    Case(
        "ignore-stages",
        ".dockerignore is for the context only, mounts too",
        "FROM busybox:lab AS one\nRUN mkdir /o && echo 1 >/o/a.md\nFROM busybox:lab\nCOPY --from=one /o /o\nRUN --mount=target=/c ls -A /c >/seen\n",
        {"b.md": "b", "c.txt": "c", ".dockerignore": "*.md\n"},
    ),
    Case(
        "ignore-links",
        "ignored targets of links, links that are ignored",
        BUSYBOX + "COPY . /all\n",
        {
            "real/x": "x",
            "link": Link("real"),
            "gone/y": "y",
            "to-gone": Link("gone"),
            "dropped": Link("real"),
            "file": File(b"f", 0o600),
            ".dockerignore": "gone\ndropped\nlink/x\n",
        },
    ),
)
