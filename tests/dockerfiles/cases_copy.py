"""COPY in all its forms."""

# ruff: noqa: E101, E501 -- Dockerfiles as they are written

from __future__ import annotations

from tests.dockerfiles.case import BUSYBOX, Case, Context, File, Folder, Hard, Link

_TREE: Context = {
    "a.txt": "a\n",
    "b.txt": File(b"b\n", 0o600),
    "run.sh": File(b"#!/bin/sh\necho run\n", 0o755),
    "raised": File(b"raised\n", 0o4755, 1000, 1000),
    "empty": "",
    "none": Folder(0o700),
    "dir/c.txt": "c\n",
    "dir/d.md": "d\n",
    "dir/sub/e.txt": File(b"e\n", 0o444),
    "dir/sub/deep/f": "f\n",
    "dir/link": Link("c.txt"),
    "dir/up": Link("../a.txt"),
    "dir/closed": Folder(0o711),
    "other/c.txt": "other c\n",
    "other/g.txt": "g\n",
}
# The names that wildcards are tried on.
_WILD: Context = {
    name: f"{name}\n"
    for name in ("a1", "a2", "a3.txt", "b1", "b2.txt", "[x]", "*star", "q?", "d1/x.txt", "d1/y.md", "d2/x.txt", "d2/s/x.txt", ".hidden", ".d/x.txt", "sp ace")
}  # fmt: skip


def _files(*paths: str, content: str = "") -> dict[str, str]:
    """Files and the directories on the way to them, as `documented` has them."""
    found: dict[str, str] = {}
    for path in paths:
        names = path.split("/")
        found |= {"/".join(names[:count]): "dir" for count in range(1, len(names))}
        found[path] = content
    return found


CASES = (
    Case(
        "copy-file",
        "a file to a file, into a directory, to what does not exist",
        BUSYBOX
        + r"""
RUN mkdir /there
COPY a.txt /file
COPY a.txt /new/deep/file
COPY a.txt /there
COPY b.txt /there/
COPY a.txt /made/
COPY run.sh raised empty /several/
COPY a.txt b.txt /there
COPY ["a.txt", "/json file"]
COPY ./a.txt dir/../b.txt /dots/
COPY /a.txt /absolute
COPY ../../a.txt /clamped
COPY a.txt .
COPY a.txt ./
COPY a.txt rel/file
COPY a.txt //double//slash
COPY a.txt /there/../there2/x
""",
        _TREE,
    ),
    Case(
        "copy-directory",
        "a directory's content; into directories that are there",
        BUSYBOX
        + r"""
COPY dir /one
COPY dir/ /two/
COPY dir other /three/
COPY dir /three/into
COPY none /none
COPY dir/sub /one
RUN mkdir -m 700 /closed && chown 1:2 /closed && mkdir /closed/sub && chown 3:4 /closed/sub && echo kept >/closed/kept
COPY dir /closed
COPY dir/closed other/ /four/
COPY dir a.txt /five/
COPY dir/. /six
""",
        _TREE,
    ),
    Case(
        "copy-everything",
        "the whole context, without .dockerignore, Dockerfile included",
        BUSYBOX
        + r"""
WORKDIR /app
COPY . .
COPY ./ /second
COPY / /third/
""",
        _TREE,
    ),
    Case(
        "copy-wildcards",
        "*, ?, sets, ranges, several directories, escapes",
        BUSYBOX
        + r"""
COPY a* /star/
COPY a? /question/
COPY [ab]1 /set/
COPY [a-b]2* /range/
COPY [^a]1 /not/
COPY d*/x.txt /same-name/
COPY d? /directories/
COPY */x.txt /any/
COPY *.txt *.md* a1 /more/
COPY d1/* /below/
COPY \[x\] /escaped-set
COPY [[]x] /set-of-one
COPY ["sp ace", "q?", "/array/"]
COPY * /all/
COPY d2/s*/ /slash/
COPY \*star /star-itself
COPY .h* /hidden/
COPY none* a1 /one-matches/
""",
        _WILD,
    ),
    Case(
        "copy-wildcard-file",
        "a wildcard that matches one file, to a name",
        BUSYBOX + "COPY a3* /file\nCOPY b2.tx[t] /new/file\n",
        _WILD,
    ),
    Case(
        "copy-wildcard-none",
        "a wildcard that matches nothing brings nothing",
        BUSYBOX + "COPY none* /x/\n",
        _WILD,
    ),
    Case(
        "copy-wildcard-many", "a wildcard that matches several, to a name", BUSYBOX + "COPY a* /file\n", _WILD
    ),
    Case(
        "copy-many",
        "several sources to what is no directory: the last one stays",
        BUSYBOX + "COPY a.txt b.txt /file\n",
        _TREE,
    ),
    Case("copy-missing", "a source that is not there", BUSYBOX + "COPY nowhere /x\n", fails="nowhere"),
    Case(
        "copy-over-file", "a directory over a file", BUSYBOX + "RUN touch /x\nCOPY dir /x\n", _TREE, fails=""
    ),
    Case(
        "copy-over-directory",
        "a file over a directory's name inside",
        BUSYBOX + "RUN mkdir -p /x/a.txt\nCOPY a.txt /x/\n",
        _TREE,
        fails="",
    ),
    Case(
        "copy-below-file",
        "into a file as if it were a directory",
        BUSYBOX + "RUN touch /x\nCOPY a.txt /x/y\n",
        _TREE,
        fails="",
    ),
    Case(
        "copy-replaces",
        "kinds that replace each other",
        BUSYBOX
        + r"""
RUN mkdir -p /d/sub && echo old >/d/c.txt && chmod 600 /d/c.txt && chown 5:5 /d/c.txt && ln -s /etc/passwd /d/link && ln -s nowhere /d/d.md && ln /d/c.txt /hard && mkfifo /d/up
COPY dir /d
RUN echo 1 >/f && ln /f /g && ln -s f /h
COPY a.txt /f
COPY b.txt /h
""",
        _TREE,
    ),
    Case(
        "copy-link-destination",
        "destinations that are or go through symbolic links",
        BUSYBOX
        + r"""
RUN mkdir -p /real/in && ln -s /real /absolute && ln -s real/in /relative && ln -s /not/there /dangling && ln -s ../../../real /up && touch /target && ln -s target /to-file && ln -s /absolute /twice
COPY a.txt /absolute/a
COPY a.txt /relative/
COPY b.txt /relative
COPY a.txt /up/b
COPY dir /twice
COPY dir/sub /relative
COPY a.txt /to-file
WORKDIR /absolute
COPY a.txt c
COPY a.txt /dangling/x
""",
        _TREE,
    ),
    Case(
        "copy-link-dangling",
        "a destination that is a dangling link",
        BUSYBOX + "RUN ln -s /made/here /dangling\nCOPY a.txt /dangling\n",
        _TREE,
    ),
    Case(
        "copy-link-source",
        "sources that are symbolic links, and go through them",
        BUSYBOX
        + r"""
COPY to-file /1
COPY to-dir /2
COPY to-dir/ /3/
COPY to-dir/c.txt /4
COPY to-file to-dir/c.txt /5/
COPY absolute /6
COPY chain /7
COPY holder /8
COPY holder/[fd]* /9/
COPY to-f* /10/
COPY to-dir/* /11/
""",
        {
            **_TREE,
            "to-file": Link("a.txt"),
            "to-dir": Link("dir"),
            "absolute": Link("/a.txt"),
            "chain": Link("to-file"),
            "holder/file": Link("../a.txt"),
            "holder/dir": Link("../dir"),
            "holder/out": Link("/etc/passwd"),
            "holder/none": Link("none"),
            "holder/beyond": Link("../../../../etc/passwd"),
        },
    ),
    Case(
        "copy-link-dangling-source",
        "a source that is a dangling link",
        BUSYBOX + "COPY l /x\n",
        {"l": Link("none")},
        fails="",
    ),
    Case(
        "copy-link-outside",
        "a source that is a link out of the context",
        BUSYBOX + "COPY l /x\n",
        {"l": Link("../../../../../../etc/hostname")},
        fails="",
    ),
    Case(
        "copy-hard-links",
        "hard links of the context",
        BUSYBOX + "COPY . /a\nCOPY one /b\nCOPY one two /c/\n",
        {"one": "1\n", "two": Hard("one"), "d/three": Hard("one")},
    ),
    Case(
        "copy-modes",
        "modes of files and directories; owners of the context do not count",
        BUSYBOX + "COPY . /d\nCOPY set* /e/\nCOPY closed /f\n",
        {
            **{
                f"set{mode:o}": File(b"x", mode, 1000, 1000)
                for mode in (0o400, 0o644, 0o755, 0o777, 0o2755, 0o4711, 0o6755)
            },
            "closed": Folder(0o700),
            "closed/file": File(b"y", 0o640),
            "sticky": Folder(0o1777),
            "group": Folder(0o2775),
            "group/x": "x",
        },
    ),
    Case(
        "copy-chown",
        "--chown: names, numbers, one or both",
        BUSYBOX
        + r"""
RUN echo 'app:x:1000:1001::/:/bin/sh' >>/etc/passwd; echo 'team:x:2000:' >>/etc/group
COPY --chown=app a.txt /name
COPY --chown=app:team a.txt /names
COPY --chown=1000 a.txt /number
COPY --chown=1000:2000 dir /numbers/deep
COPY --chown=7 dir /unknown
COPY --chown=app:9 a.txt /mixed
COPY --chown=8:team a.txt /mixed2
COPY --chown=daemon . /new/way/all/
ARG who=app
COPY --chown=$who:${none:-team} a.txt /variable
USER app
COPY a.txt /as-user
COPY --chown=root:root a.txt /root
COPY --chown=0 a.txt /zero
""",
        _TREE,
    ),
    Case(
        "copy-chown-existing",
        "--chown and directories that are there",
        BUSYBOX
        + r"""
RUN mkdir -p /there/sub && chmod 700 /there/sub && echo x >/there/kept
COPY --chown=5:6 dir /there
COPY --chown=5:6 a.txt /there/sub/
COPY --chown=5:6 a.txt /there/new/sub/file
""",
        _TREE,
    ),
    Case(
        "copy-chown-unknown",
        "--chown with a name that is not there is root",
        BUSYBOX + "COPY --chown=nobody-here a.txt /\n",
        _TREE,
    ),
    Case(
        "copy-chown-scratch",
        "--chown by number in an empty image; names that are always known",
        "FROM scratch\nCOPY --chown=5:6 a.txt /a\nCOPY --chown=0:0 a.txt /b\n",
        _TREE,
    ),
    Case(
        "copy-chown-scratch-name",
        "--chown by name in an empty image",
        "FROM scratch\nCOPY --chown=app a.txt /a\n",
        _TREE,
        fails="",
    ),
    Case(
        "copy-chmod",
        "--chmod of files, directories, with special bits, with --chown",
        BUSYBOX
        + r"""
COPY --chmod=755 a.txt /a
COPY --chmod=0640 b.txt raised /b/
COPY --chmod=700 dir /c
COPY --chmod=4755 a.txt /d
COPY --chmod=0 a.txt /e
COPY --chmod=1777 none /f
COPY --chown=3:4 --chmod=2711 dir /g
COPY --chmod=444 a.txt /new/deep/h
""",
        _TREE,
    ),
    Case(
        "copy-chmod-wrong",
        "--chmod with what is no mode is none",
        BUSYBOX + "COPY --chmod=worse a.txt /a\n",
        _TREE,
    ),
    Case(
        "copy-from",
        "--from a stage by name, by number, an image; what it keeps",
        r"""
FROM busybox:lab AS make
RUN mkdir -p /out/sub && echo one >/out/one && ln /out/one /out/hard && ln -s one /out/soft && ln -s /out/sub /out/dir && echo two >/out/sub/two
RUN chown 1000:1001 /out/one && chmod 4750 /out/one && chown -R 7:8 /out/sub && chmod 2711 /out/sub && mkfifo /out/fifo && mknod /out/null c 1 3
RUN attribute set user.note text /out/one && cp /bin/busybox /out/ping && attribute capability /out/ping && attribute set user.dir d /out/sub && ln -s none /out/dangling && ln -s /out/one /abs
FROM busybox:lab AS Second
COPY --from=make /out /all
COPY --from=0 /out/one /one
COPY --from=make /out/soft /soft
COPY --from=make /out/dir /dir
COPY --from=make /out/dir/two /through
COPY --from=make /abs /abs
COPY --from=make out/sub/ /relative/
COPY --from=make --chown=5:6 /out/sub /owned
COPY --from=make --chmod=711 /out/one /mode
COPY --from=make /out/o* /wild/
COPY --from=make /out/ping /ping
COPY --from=busybox:lab /etc/passwd /from-image
COPY --from=busybox:lab /bin/busybox /bin/sh /bin2/
FROM scratch
COPY --from=second /one /
COPY --from=1 /all/sub /sub
COPY --from=MAKE /out/one /upper
COPY --from=make / /whole
""",
    ),
    Case(
        "copy-from-unknown",
        "--from what is neither a stage nor an image",
        BUSYBOX + "COPY --from=registry.invalid/none /x /y\n",
        fails="",
    ),
    Case(
        "copy-from-later",
        "--from a stage that comes later",
        BUSYBOX + "COPY --from=later /x /y\n" + "FROM busybox:lab AS later\n",
        target="0",
        fails="",
    ),
    Case(
        "copy-link",
        "--link: replaces links on the way, its own owners and modes",
        BUSYBOX
        + r"""
RUN mkdir -m 700 /there && echo old >/there/old && mkdir /real && ln -s real /soft
COPY --link a.txt /a
COPY --link dir /there
COPY --link a.txt /new/deep/b
COPY --link --chown=5:6 dir /owned/deep
COPY --link --chmod=600 a.txt /mode
COPY --link a.txt /soft/in
COPY --link --from=busybox:lab /etc/passwd /passwd
WORKDIR /work
COPY --link a.txt relative
COPY --link a.txt b.txt into/
ADD --link a.txt /added
""",
        _TREE,
    ),
    Case(
        "copy-link-user",
        "--link with a user's name",
        BUSYBOX + "COPY --link --chown=daemon a.txt /a\n",
        _TREE,
    ),
    Case(
        "copy-heredoc",
        "here-documents: expanded, quoted, tabs stripped, several",
        BUSYBOX
        + r"""
ENV A=value
ARG B=argument
COPY <<EOF /one
$A ${B} ${none:-default} "quoted" 'single $A' \$A \\ \n
  spaces	tab
EOF
COPY <<'EOF' /two
$A ${B} \$A \\ "x"
EOF
COPY <<-EOF /three
	stripped $A
		twice
	  spaces
	EOF
COPY <<-"EOF" /four
	$A
	EOF
COPY <<robots.txt <<'humans.txt' /web/
$A
robots.txt
$A
humans.txt
COPY <<x a.txt /mixed/
heredoc
x
COPY --chmod=755 --chown=5:6 <<EOF /bin/script
#!/bin/sh
echo "$A" "\$1"
EOF
COPY <<EOF /empty
EOF
COPY <<EOF /new/deep/
name is EOF
EOF
COPY <<EOF relative
no newline lost

EOF
ADD <<EOF /added
$A
EOF
""",
        _TREE,
    ),
    Case(
        "copy-heredoc-escapes",
        "what is an escape in an expanded here-document",
        BUSYBOX
        + r"""
ENV w=world
COPY <<EOF /x
\$w \\$w \\\$w "\$w" '$w' '\$w' "$w" \a \" \' " ' `w` $(w) $ $$ \
next ${w:+"q"} ${w:+'q'} ${none:-\$w} ${w#w} ${w/o/0}
EOF
""",
        _TREE,
    ),
    Case(
        "copy-variables",
        "variables in sources and destinations, and where they are not expanded",
        BUSYBOX
        + r"""
ARG name=a.txt
ENV dir=/made\ here/x star=a*
COPY $name ${dir}/
COPY ${none:-b}.txt "$dir/"
COPY '$lit' /literal/
COPY \$lit /literal2
COPY ["$name", "${dir}/json/"]
COPY $star /stars/
COPY ${name%.txt}.txt /trimmed
""",
        {**_TREE, "$lit": "dollar\n"},
    ),
    Case(
        "copy-odd-names",
        "names with spaces, quotes, backslashes, line breaks, not UTF-8",
        BUSYBOX
        + r"""
COPY . /all
COPY ["it\\'s", "say \\\"hi\\\"", "/json/"]
COPY ünï /
""",
        {
            "it's": "1",
            'say "hi"': "2",
            "ünï": "3",
            "two\nlines": "4",
            "tab\there": "5",
            "back\\slash": "6",
            " lead": "7",
            "#x": "8",
            "-x": "9",
            "%41": "10",
            "a:b": "11",
        },
    ),
    Case(
        "copy-quote-open",
        "quotes count in the exec form too",
        BUSYBOX + 'COPY ["it\'s", "/x"]\n',
        {"it's": "1"},
        fails="single-quote",
    ),
    Case(
        "copy-quoted-space",
        "quotes keep no words together",
        BUSYBOX + 'COPY "sp ace" /x\n',
        {"sp ace": "1"},
        fails="double-quote",
    ),
    Case(
        "copy-special",
        "a destination of dots; the root",
        BUSYBOX
        + r"""
WORKDIR /w/x
COPY a.txt .
COPY a.txt ..
COPY dir ../sibling
COPY dir/sub /
COPY a.txt ../../../../beyond
COPY dir .
COPY other ./
""",
        _TREE,
    ),
    Case(
        "copy-hosts",
        "files of which RUN sees others in their place",
        BUSYBOX
        + r"""
COPY own /etc/hosts
RUN grep -c own /etc/hosts >/one; true
COPY own /etc/resolv.conf
COPY d /etc
RUN grep -c own /etc/hosts >>/one; ls /etc >/two
FROM scratch
COPY --from=0 / /
COPY own /etc/hosts
""",
        {"own": "own\n", "d/hosts": "d\n", "d/more": "more\n"},
    ),
    Case(
        "copy-nothing",
        "an empty directory, to several kinds of places",
        BUSYBOX + "COPY none /a\nCOPY none/ /b/\nCOPY none empty /c/\nCOPY none /etc\n",
        _TREE,
    ),
    Case(
        "copy-user-directories",
        "who owns the directories that are made on the way",
        BUSYBOX
        + r"""
USER 1000:1001
COPY a.txt /made/by/copy
WORKDIR /made/by/workdir
COPY a.txt sub/dir/
COPY --chown=5:6 a.txt /made/by/chown/x
COPY --chmod=700 a.txt /made/by/chmod/x
RUN id -u >/tmp/id
""",
        _TREE,
    ),
    Case(
        "copy-parents",
        "--parents: pivots, wildcards, **, several sources; what BuildKit's own tests say",
        r"""# syntax=docker/dockerfile:1-labs
FROM busybox:lab AS base
WORKDIR /test
RUN <<EOF
set -e
mkdir -p a/b/c/d/e a/b2/c/d/e a/b/c2/d/e a/b/c2/d/e2
touch a/b/c/d/foo a/b/c/d/e/bay a/b2/c/d/e/bar a/b/c2/d/e/baz a/b/c2/d/e2/baz
EOF
FROM scratch
COPY --from=base --parents /test/a/b/./c/d /middle/
COPY --from=base --parents /test/a/b/c/d/. /end/
COPY --from=base --parents ./test/a/b/c/d /start/
COPY --from=base --parents /test/a/./b/./c/d /double/
COPY --from=base --parents /test/a/./*/c /wildcard/
COPY --from=base --parents /test/a/b*/./c/**/e /deep/
COPY --from=base --parents /test/a/b/c*/./d/**/baz /test/a/b*/./c/**/bar /several/
COPY --from=base --parents /test/a/b/./c2*/none /nothing/
COPY --parents x/y.txt z* /context/
""",
        {"x/y.txt": "y\n", "x/no": "", "z1": "1\n", "z2/z": "2\n"},
        documented={
            **_files("middle/c/d/foo", "middle/c/d/e/bay"),
            **_files("end/test/a/b/c/d/foo", "end/test/a/b/c/d/e/bay"),
            **_files("start/test/a/b/c/d/foo", "start/test/a/b/c/d/e/bay"),
            **_files("double/b/c/d/foo", "double/b/c/d/e/bay"),
            **_files("wildcard/b/c/d/foo", "wildcard/b/c/d/e/bay", "wildcard/b2/c/d/e/bar"),
            **_files("deep/c/d/e/bay", "deep/c/d/e/bar"),
            **_files("several/d/e/baz", "several/d/e2/baz", "several/c/d/e/bar"),
            "nothing": "dir",
            **_files("context/x/y.txt", content="y\n"),
            **_files("context/z1", content="1\n"),
            **_files("context/z2/z", content="2\n"),
        },
    ),
    Case(
        "copy-exclude",
        "--exclude of COPY and ADD; what BuildKit's own tests say",
        r"""# syntax=docker/dockerfile:1-labs
FROM scratch
COPY --exclude=*/*.png --exclude=*/*.jpeg dirs /1
COPY --exclude=*/*.pdf --exclude=*/*.txt dirs /2
ADD --exclude=*.mp3 dirs/dir3/ /3/
COPY --exclude=*.mp3 --exclude=*.jpeg --exclude=*.png --exclude=*.pdf --exclude=*.txt dirs/dir* /4/
ADD --exclude=*.mp* --exclude=*.jpeg --exclude=*.png --exclude=*.pdf dirs/dir* /5
ADD --exclude=* dirs/dir* /6
""",
        {
            **{f"dirs/dir1/{name}": name for name in ("101.png", "102.txt", "103.jpeg")},
            **{f"dirs/dir2/{name}": name for name in ("201.pdf", "202.jpeg", "203.png")},
            **{f"dirs/dir3/{name}": name for name in ("301.mp3", "302.mpeg")},
            "dirs/dir4/401.txt": "401.txt",
            "dirs/dir4/402.txt": Link("401.txt"),
        },
        documented={
            **_files("1/dir1/102.txt", content="102.txt"),
            **_files("1/dir2/201.pdf", content="201.pdf"),
            **_files("1/dir3/301.mp3", content="301.mp3"),
            **_files("1/dir3/302.mpeg", content="302.mpeg"),
            **_files("1/dir4/401.txt", content="401.txt"),
            **_files("1/dir4/402.txt", content="-> 401.txt"),
            **_files("2/dir1/101.png", content="101.png"),
            **_files("2/dir1/103.jpeg", content="103.jpeg"),
            **_files("2/dir2/202.jpeg", content="202.jpeg"),
            **_files("2/dir2/203.png", content="203.png"),
            **_files("2/dir3/301.mp3", content="301.mp3"),
            **_files("2/dir3/302.mpeg", content="302.mpeg"),
            "2/dir4": "dir",
            **_files("3/302.mpeg", content="302.mpeg"),
            **_files("4/302.mpeg", content="302.mpeg"),
            **_files("5/102.txt", content="102.txt"),
            **_files("5/401.txt", content="401.txt"),
            **_files("5/402.txt", content="-> 401.txt"),
            "6": "dir",
        },
    ),
)
