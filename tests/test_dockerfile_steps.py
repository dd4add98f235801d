"""RUN, COPY and ADD with all that can be said to them: commands, here-documents, mounts, flags, destinations."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import pytest

from converter.dockerfile.model import Copy, DockerfileError, ImageSource, InlineFile, Mount, Run, StageSource
from converter.dockerfile.options import BuildOptions
from converter.dockerfile.parser import read
from converter.dockerfile.stages import evaluate
from converter.dockerfile.values import is_signal, parse_duration, parse_ports, parse_size, parse_truth
from converter.image.model import ImageConfig

HEAD = "FROM plain AS other\nFROM plain\nENV v=value e= q='\"q\"'\nWORKDIR /work\n"


def _last(text: str) -> Any:
    recipe = evaluate(read("Dockerfile", (HEAD + text).encode()), BuildOptions(), lambda _: ImageConfig())
    return recipe.target.steps[-1]


def _error(text: str) -> str:
    with pytest.raises(DockerfileError) as raised:
        _last(text)
    return str(raised.value).removeprefix("Dockerfile:5:")


# --- RUN ---


@pytest.mark.parametrize(
    ("text", "argv"),
    [
        ("RUN a $v \"b\" \\$c", ("/bin/sh", "-c", 'a $v "b" \\$c')),
        ("RUN a \\\n  && b", ("/bin/sh", "-c", "a   && b")),
        ('RUN ["a", "$v", ""]', ("a", "$v", "")),
        ('SHELL ["x", "-y"]\nRUN a b', ("x", "-y", "a b")),
        ('SHELL ["x", "-y"]\nRUN ["a"]', ("a",)),
        ("RUN", ("/bin/sh", "-c", "")),
        ("RUN -- --a b", ("/bin/sh", "-c", "--a b")),
        # one here-document alone is what the shell gets; with more, the shell has to read it
        ("RUN <<EOF\na $v\n\tb\nEOF", ("/bin/sh", "-c", "a $v\n\tb\n")),
        ("RUN <<-'EOF'\n\ta $v\n\t\tb\n\tEOF", ("/bin/sh", "-c", "a $v\nb\n")),
        ("RUN <<EOF sh\na\nEOF", ("/bin/sh", "-c", "<<EOF sh\na\nEOF")),
        ("RUN cat <<-A <<'B' > c\n\ta\n\tA\nb\nB", ("/bin/sh", "-c", "cat <<-A <<'B' > c\n\ta\nA\nb\nB")),
        ("RUN <<EOF\nEOF", ("/bin/sh", "-c", "")),
        ('SHELL ["x"]\nRUN <<EOF\na\nEOF', ("x", "a\n")),
    ],
)  # fmt: skip
def test_commands(text: str, argv: tuple[str, ...]) -> None:
    run = _last(text)
    assert isinstance(run, Run)
    assert (run.argv, run.script) == (argv, None)


def test_scripts() -> None:
    run = _last("RUN <<'x y' \n#!/usr/bin/env python3\nprint('$v é')\nx y")
    assert (run.argv, run.script) == (("/dev/pipes/x y",), "#!/usr/bin/env python3\nprint('$v é')\n".encode())
    run = _last("RUN <<-EOF\n\t#!/bin/sh\n\t\ta\n\tEOF")  # only what begins with #! is a script
    assert (run.argv, run.script) == (("/bin/sh", "-c", "#!/bin/sh\na\n"), None)
    run = _last("RUN <<-EOF\n#!/bin/sh\n\ta\n\tEOF")
    assert (run.argv, run.script) == (("/dev/pipes/EOF",), b"#!/bin/sh\na\n")


def test_a_script_stays_in_its_directory() -> None:
    assert _error("RUN <<../../etc/x\n#!/bin/sh\n../../etc/x").startswith(
        "1: the script cannot be a file named"
    )


def test_network_and_security() -> None:
    run = _last("RUN --network=none --security=insecure a")
    assert (run.network, run.insecure) == ("none", True)
    run = _last("RUN --network=default --security=sandbox a")
    assert (run.network, run.insecure) == ("default", False)
    assert (_last("RUN a").network, _last("RUN --network=host a").network) == ("default", "host")


BIND = Mount("bind", "/t", read_only=True)
CACHE = Mount("cache", "/t", id="/t")
SECRET = Mount("secret", "/run/secrets/s", read_only=True, id="s")


@pytest.mark.parametrize(
    ("text", "mount"),
    [
        ("target=/t", BIND),
        ("type=bind,dst=/t", BIND),
        ("type=BIND,DESTINATION=/t/../t/.", BIND),
        ("type=bind", replace(BIND, target="/work")),
        ("target=t", replace(BIND, target="/work/t")),
        ("target=/t,source=a/../b", replace(BIND, source="/b")),
        ("target=/t,src=/../x", replace(BIND, source="/x")),
        ("target=/t,rw", replace(BIND, read_only=False)),
        ("target=/t,readwrite=false", BIND),
        ("target=/t,ro=0", replace(BIND, read_only=False)),
        ("target=/t,readonly", BIND),
        ("target=/t,from=other", replace(BIND, origin=StageSource(0))),
        ("target=/t,from=OTHER,rw=1", replace(BIND, origin=StageSource(0), read_only=False)),
        ("target=/t,from=image:1", replace(BIND, origin=ImageSource("image:1"))),
        ("target=/t,from=0", replace(BIND, origin=ImageSource("0"))),  # stages have no numbers here
        ("target=/t,from=scratch", replace(BIND, origin=ImageSource("scratch"))),
        ('"target=/t,u"', replace(BIND, target="/t")),
        ("target=/$v,source=${v}", replace(BIND, target="/value", source="/value")),
        ("type=$none${v:+bind},target=/t", BIND),
        ("type=cache,target=/t", CACHE),
        ("type=cache,target=t/", replace(CACHE, target="/work/t", id="t")),
        ("type=cache,target=/t,id=i,sharing=LOCKED", replace(CACHE, id="i", sharing="locked")),
        ("type=cache,target=/t,sharing=private,ro", replace(CACHE, sharing="private", read_only=True)),
        ("type=cache,target=/t,uid=1,gid=2,mode=0700", replace(CACHE, uid=1, gid=2, mode=0o700)),
        ("type=cache,target=/t,from=other,source=x", replace(CACHE, origin=StageSource(0), source="/x")),
        ("type=tmpfs,target=/t", Mount("tmpfs", "/t")),
        ("type=tmpfs,target=/t,size=1.5k", Mount("tmpfs", "/t", size=1536)),
        ("type=tmpfs,target=/t,size=64MiB", Mount("tmpfs", "/t", size=64 << 20)),
        ("type=secret,id=s", SECRET),
        ("type=secret,source=s", SECRET),
        ("type=secret,id=a/s", replace(SECRET, id="a/s")),
        ("type=secret,target=/x/s", replace(SECRET, target="/x/s")),
        ("type=secret,id=s,required", replace(SECRET, required=True)),
        ("type=secret,id=s,required=false,mode=0440,uid=1,gid=2", replace(SECRET, mode=0o440, uid=1, gid=2)),
        ("type=secret,id=s,env=S", replace(SECRET, target=None, env="S")),
        ("type=secret,id=s,env=S,target=/x", replace(SECRET, target="/x", env="S")),
        ("type=ssh", Mount("ssh", None, read_only=True, id="default")),
        ("type=ssh,id=k,target=/s,required=true,mode=600", Mount(
            "ssh", "/s", read_only=True, id="k", required=True, mode=0o600)),
    ],
)  # fmt: skip
def test_mounts(text: str, mount: Mount) -> None:
    if text.startswith('"'):
        text, mount = '\\"target=/t,u\\"', replace(mount, target="/t,u")
    assert _last(f"RUN --mount={text} a").mounts == (mount,)


def test_several_mounts() -> None:
    run = _last("RUN --mount=target=/t --network=none --mount=type=cache,target=/t a")
    assert run.mounts == (BIND, CACHE)


@pytest.mark.parametrize(
    ("text", "message"),
    {
        "type=bnd": '5: unsupported mount type "bnd"; did you mean bind?',
        "target": "5: invalid field 'target' must be a key=value pair; write target=VALUE",
        "target=/": '5: invalid mount target "/"',
        "targte=/t": "5: unexpected key 'targte' in 'targte=/t'; did you mean target?",
        "target=/t,from=$v": "5: 'from' doesn't support variable expansion, define alias stage instead",
        "target=/t,ro=maybe": "5: invalid value for ro: maybe",
        "target=/t,mode=700": '5: mode not allowed for "bind" type mounts',
        "type=tmpfs,target=/t,uid=0": '5: uid not allowed for "tmpfs" type mounts',
        "type=cache,target=/t,mode=u+x": "5: invalid value for mode: u+x; write an octal number",
        "type=cache,target=/t,uid=me": "5: invalid value for uid: me",
        "type=cache,target=/t,sharing=mine": '5: unsupported sharing value "mine"; the values are shared',
        "target=/t,sharing=locked": "5: invalid cache sharing set for bind mount",
        "type=tmpfs,target=/t,size=much": "5: invalid value for size: much; write it like 64m",
        "type=cache,target=/t,size=1": "5: unexpected key 'size' for mount type 'cache'; it belongs to type=tmpfs",
        "required,type=secret,id=s": "5: unexpected key 'required' for mount type 'bind'",
        "type=secret": "5: invalid secret mount. one of source, target required",
        "type=secret,id=a,source=b": "5: both source and id can't be set",
        "type=secret,id=a,from=other": "5: secret mount should not have a from",
        "type=ssh,source=a": "5: ssh does not support source",
        "": "5: failed to parse csv mounts",
        "target=/t,source=${v^}": '30: failed to process "${v^}"',
    }.items(),
)
def test_wrong_mounts(text: str, message: str) -> None:
    assert _error(f"RUN --mount={text} a").startswith(message)


# --- COPY and ADD ---


@pytest.mark.parametrize(
    ("written", "destination"),
    [
        ("/a", "/a"),
        ("/a/", "/a/"),
        ("/a//b/../c/", "/a/c/"),
        ("/a/.", "/a/."),
        ("/../../a", "/a"),
        ("/", "/"),
        (".", "/work/"),
        ("./", "/work/"),
        ("a", "/work/a"),
        ("a/", "/work/a/"),
        ("a/.", "/work/a"),
        ("..", "/"),
        ("../a/", "/a/"),
        ("$v", "/work/value"),
        ("/${v}/", "/value/"),
        ("$none", "/work/"),
        ("'a b'", "/work/a b"),
    ],
)
def test_destinations(written: str, destination: str) -> None:
    assert _last(f'COPY ["x", "{written}"]').destination == destination


COPY = Copy(0, None, None, False, ("a",), "/b")  # type: ignore[arg-type]
DIGEST = "sha256:" + "0" * 64


@pytest.mark.parametrize(
    ("text", "copy"),
    [
        ("COPY a /b", COPY),
        ('COPY ["a b", "/b"]', replace(COPY, sources=("a b",))),
        ("COPY a* 'x' \"$v\" ../y $none /b", replace(COPY, sources=("a*", "x", "value", "../y", "."))),
        ("COPY --from=other a /b", replace(COPY, origin=StageSource(0))),
        ("COPY --from=0 a /b", replace(COPY, origin=StageSource(0))),
        ("COPY --from=image@" + DIGEST + " a /b", replace(COPY, origin=ImageSource(f"image@{DIGEST}"))),
        ("COPY --from=scratch a /b", replace(COPY, origin=ImageSource("scratch"))),
        ("COPY --from= a /b", COPY),
        ("COPY --chown=$v:x --chmod=u=rw,go+r a /b", replace(COPY, chown="value:x", chmod="u=rw,go+r")),
        ("COPY --chmod=${none:-0644} --chown=$none a /b", replace(COPY, chmod="0644")),
        ("COPY --link --parents=TRUE a /b", replace(COPY, link=True, parents=True)),
        ("COPY --link=false a /b", COPY),
        ("COPY --exclude=*.o --exclude=$v/x a /b", replace(COPY, exclude=("*.o", "value/x"))),
        ("ADD a /b", replace(COPY, add=True)),
        ("ADD --unpack=false --keep-git-dir a /b", replace(COPY, add=True, unpack=False, keep_git_dir=True)),
        ("ADD --unpack a /b", replace(COPY, add=True, unpack=True)),
        ("ADD http://h/$v git@h:x /b", replace(COPY, add=True, sources=("http://h/value", "git@h:x"))),
        ("ADD --checksum=" + DIGEST + " https://h/a /b", replace(
            COPY, add=True, sources=("https://h/a",), checksum=DIGEST)),
        # here-documents: names are the files' names; quotes of the word, not those of the text, count
        ("COPY <<a <<'b' <<-c x /b\n$v \"${e:-none}\" \\$v\na\n$v\nb\n\tt$v\n\t\tu\n\tc", replace(
            COPY,
            sources=("x",),
            inline=(
                InlineFile("a", b'value "none" $v\n'),
                InlineFile("b", b"$v\n"),
                InlineFile("c", b"tvalue\nu\n"),
            ),
        )),
        ("ADD <<a /b\n$q\na", replace(COPY, add=True, sources=(), inline=(InlineFile("a", b'"q"\n'),))),
        ('COPY ["<<a", "/b"]', replace(COPY, sources=(), inline=(InlineFile("a", b""),))),
    ],
)  # fmt: skip
def test_copies(text: str, copy: Copy) -> None:
    step = _last(text)
    assert isinstance(step, Copy)
    assert replace(step, number=0, instruction=copy.instruction, state=copy.state) == copy


# --- single values ---


@pytest.mark.parametrize(
    ("text", "value"),
    [
        *(("0", 0), ("1s", 10**9), ("1.5s", 1_500_000_000), (".5m", 30 * 10**9), ("1h2m3s4ms5us6ns", None)),
        *(("2µs", 2000), ("2μs", 2000), ("-1s", -(10**9)), ("+1s", 10**9), ("1.s", 10**9)),
    ],
)
def test_durations(text: str, value: int | None) -> None:
    assert parse_duration(text) == (3_723_004_005_006 if value is None else value)


@pytest.mark.parametrize(
    "text", ["", "-", "1", "s", "1 s", "1d", "1s2", ".s", "1..s", "1e3s", "9999999999h", "1S", "١s"]
)
def test_no_durations(text: str) -> None:
    with pytest.raises(ValueError, match="duration"):
        parse_duration(text)


def test_sizes() -> None:
    sizes = {
        "0": 0,
        "12b": 12,
        "1k": 1024,
        "1 KB": 1024,
        "1kib": 1024,
        "2G": 2 << 30,
        "1.5m": 3 << 19,
        "1P": 1 << 50,
    }
    assert {text: parse_size(text) for text in sizes} == sizes
    for text in ("", "k", "-1", "1x", "1kk", "1e3", "0x10", "1" * 50):
        with pytest.raises(ValueError, match="size"):
            parse_size(text)


def test_truth_values() -> None:
    assert [parse_truth(text) for text in ("1", "t", "True", "0", "F", "FALSE")] == [True] * 3 + [False] * 3
    for text in ("", "yes", "on", "tRUE"):
        with pytest.raises(ValueError, match="neither"):
            parse_truth(text)


def test_signals() -> None:
    for text in ("SIGTERM", "term", "SigUsr1", "15", "64", "RTMIN", "SIGRTMIN+15", "RTMAX-14"):
        assert is_signal(text), text
    for text in ("", "0", "SIG", "SIGSIGTERM", "SIGTERM ", "RTMIN+16", "RTMIN+", "NOTHING", "1.5", "1" * 30):
        assert not is_signal(text), text


def test_ports() -> None:
    assert list(parse_ports("8000-8002/UDP")) == ["8000/udp", "8001/udp", "8002/udp"]
    assert list(parse_ports("127.0.0.1:80:90/")) == ["90/tcp"]
    assert len(list(parse_ports("0-65535"))) == 65536
