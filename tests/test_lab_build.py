"""Recipes built for real: what a RUN sees, what stays in its layer, what the cache saves, mounts, stages, failures."""

from __future__ import annotations

import os
import pty
import socket
import sys
import tempfile
import threading
import time
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from converter.cache.store import Cache
from converter.dockerfile.build import Builder, Settings
from converter.dockerfile.forward import forwarded
from converter.dockerfile.model import DockerfileError, ImageSource, Mount, Run, StageSource, State
from converter.dockerfile.namespace import own_namespace
from converter.dockerfile.overlay import shown, trees_of
from converter.errors import ConversionError
from converter.image.model import Healthcheck, Image, ImageConfig
from converter.places import Places
from converter.progress import Silent
from tests.building import (
    BUSYBOX,
    PATH,
    ROOT_STATE,
    Site,
    bind_mount,
    copy,
    instruction,
    label,
    run,
    stage,
    take_image,
    workdir,
)
from tests.trees import facts

pytestmark = pytest.mark.lab  # root

BOTH = pytest.mark.parametrize("chroot", [False, True], ids=["nspawn", "chroot"])


@pytest.fixture
def site(tmp_path: Path) -> Site:
    return Site(tmp_path)


def as_user(user: str, **more: Any) -> State:
    return State(env=(PATH, ("A", "b c")), args=(("VERSION", "1\n2"),), user=user, **more)


# --- what a RUN sees ---


@BOTH
@pytest.mark.parametrize(
    ("user", "ids", "home"),
    [
        ("", "uid=0(root) gid=0(root) groups=0(root)", "/root"),
        ("app", "uid=1000(app) gid=1001(app) groups=1001(app),2000(extra)", "/home/app"),
        ("1000", "uid=1000(app) gid=1001(app) groups=1001(app),2000(extra)", "/home/app"),
        ("1000:2000", "uid=1000(app) gid=2000(extra) groups=2000(extra)", "/home/app"),
        ("4711", "uid=4711 gid=0(root) groups=0(root)", "/"),
    ],
)
def test_who_it_is(site: Site, chroot: bool, user: str, ids: str, home: str) -> None:
    site.build(stage(run("id; echo $HOME; umask; pwd", state=as_user(user))), chroot=chroot)
    assert site.output.splitlines() == [ids, home, "0022", "/"]


@BOTH
def test_its_environment_is_nothing_else(site: Site, chroot: bool) -> None:
    site.build(
        stage(
            Run(1, instruction("RUN", "env"), as_user("app", working_directory="/srv/x"), ("/bin/env", "-0"))
        ),
        chroot=chroot,
    )
    assert sorted(site.output.rstrip("\0").split("\0")) == [
        "A=b c",
        "HOME=/home/app",
        "PATH=/bin",
        "VERSION=1\n2",
    ]


@BOTH
def test_what_it_may_do(site: Site, chroot: bool) -> None:
    command = (
        "grep -e ^Cap -e NoNewPrivs /proc/self/status; mount -t tmpfs x /tmp; chown 5:6 /etc/passwd; hostname"
    )
    site.build(stage(run(f"{command}; mknod /tmp/null c 1 3 && echo device")), chroot=chroot)
    lines = site.output.split()
    assert lines[:12] == [
        *("CapInh:", "0000000000000000", "CapPrm:", "00000000a80425fb", "CapEff:", "00000000a80425fb"),
        *("CapBnd:", "00000000a80425fb", "CapAmb:", "0000000000000000", "NoNewPrivs:", "0"),
    ]
    assert "mount: permission denied (are you root?)" in site.output
    assert lines[-2:] == ["buildkitsandbox", "device"]


@BOTH
def test_the_program_is_alone(site: Site, chroot: bool) -> None:
    command = "ps -o pid,args; ls /proc/1/fd; cat; echo $$; sleep 600 & kill -0 $! && echo left"
    site.build(stage(run(command)), chroot=chroot)
    pids = [line.split()[0] for line in site.output.splitlines() if "ps -o" in line or "/bin/sh" in line]
    assert "1" in pids
    assert len(pids) <= 3
    assert site.output.splitlines()[-1] == "left"  # and it has ended with the program, or we would still wait


@BOTH
def test_arguments_are_given_as_they_are(site: Site, chroot: bool) -> None:
    words = ("", "a b", "'\"$x`\\", "\n\t", "ü\udcff", "%n", "-x", "=")
    built = stage(
        Run(1, instruction("RUN", "[]"), ROOT_STATE, ("/bin/sh", "-c", 'printf "<%s>" "$@" >/out', *words))
    )
    tree = site.tree(site.build(built, chroot=chroot))
    # The first word is $0.
    assert (tree / "out").read_bytes().decode("utf-8", "surrogateescape") == "".join(
        f"<{word}>" for word in words[1:]
    )


@BOTH
def test_a_working_directory_that_is_missing_is_made_for_the_user(site: Site, chroot: bool) -> None:
    tree = site.run(run("pwd >mine", state=as_user("app", working_directory="/srv/a/b")), chroot=chroot)
    assert (tree / "srv/a/b/mine").read_text() == "/srv/a/b\n"
    assert (tree / "srv/a/b").stat().st_uid == 1000


@BOTH
def test_networks(site: Site, chroot: bool) -> None:
    site.build(stage(run("ls /sys/class/net; ip link", network="none")), chroot=chroot)
    assert "lo" in site.output
    assert "eth" not in site.output.split("1: lo")[1]
    site.build(stage(run("ip link")), chroot=chroot)
    for name in (name for _, name in socket.if_nameindex()):
        assert f": {name}" in site.output


@BOTH
def test_name_service(site: Site, chroot: bool) -> None:
    command = "cat /etc/resolv.conf /etc/hosts; echo x >>/etc/hosts || echo read-only"
    tree = site.run(run(command), chroot=chroot)
    assert site.output.startswith(Path("/etc/resolv.conf").read_text())
    assert "127.0.0.1\tlocalhost buildkitsandbox\n" in site.output
    assert site.output.endswith("read-only\n")
    assert not (tree / "etc/hosts").exists()
    assert not (tree / "etc/resolv.conf").exists()


@BOTH
def test_insecure_only_where_it_is_allowed(site: Site, chroot: bool) -> None:
    step = run("grep CapEff /proc/self/status; mount -t tmpfs x /tmp && echo mounted", insecure=True)
    with pytest.raises(
        DockerfileError, match=r"^Dockerfile:1:1: --security=insecure is not allowed; allow it with "
    ):
        site.build(stage(step), chroot=chroot)
    tree = site.run(step, chroot=chroot, allow=frozenset({"security.insecure"}))
    assert site.output.split()[1] == Path("/proc/self/status").read_text().split("CapBnd:")[1].split()[0]
    assert "mounted" in site.output
    assert (tree / "tmp").is_dir()


# --- what stays in the layer ---


@BOTH
def test_nothing_of_its_surroundings_stays(site: Site, chroot: bool) -> None:
    plain = facts(site.run(label("nothing")))
    after = facts(site.run(run("true"), chroot=chroot))
    # runc makes these too, and they stay.
    assert set(after) - set(plain) == {b"dev", b"proc", b"sys"}
    # /etc gets the time at which /etc/hosts was made in it, and the root that of those.
    changed = {path for path, fact in plain.items() if after[path] != fact}
    assert changed <= {b".", b"etc"}
    assert after[b"etc"]._replace(mtime=0) == plain[b"etc"]._replace(mtime=0)


def test_places_for_mounts_go_with_what_was_made_for_them(site: Site) -> None:
    mounts = (
        Mount("tmpfs", "/made/on/the/way"),
        Mount("tmpfs", "/etc/deep/er"),
        Mount("tmpfs", "/used/by/it"),
    )
    tree = site.run(run("touch /used/file", mounts=mounts), run("ls /etc", mounts=(Mount("tmpfs", "/etc"),)))
    assert site.output == ""  # nothing of the name service is over it
    assert not (tree / "made").exists()
    assert not (tree / "etc/deep").exists()
    assert [path.name for path in (tree / "used").iterdir()] == ["file"]


def test_a_file_cannot_be_where_a_directory_is_mounted(site: Site) -> None:
    with pytest.raises(
        DockerfileError, match="'/etc/passwd' is no directory in the image, so what it is to show"
    ):
        site.run(run("true", mounts=(Mount("tmpfs", "/etc/passwd"),)))


@BOTH
def test_run_and_tmp_are_ordinary_directories(site: Site, chroot: bool) -> None:
    tree = site.run(
        run("mkdir -p /run/app /var/run && echo 1 >/run/app/pid && echo 2 >/tmp/kept && echo 3 >/dev/gone"),
        run(
            "cat /run/app/pid /tmp/kept && rm -rf /run/* /tmp/*; ls -A /run /tmp /dev/gone; echo 4 >/run/new"
        ),
        chroot=chroot,
    )
    assert site.output.startswith("1\n2\n")
    assert "busy" not in site.output
    found = [path for name in ("run", "tmp", "dev") for path in (tree / name).rglob("*")]
    assert found == [tree / "run/new"]


@BOTH
def test_scratch_has_only_what_is_put_there(site: Site, chroot: bool) -> None:
    (site.context / "busybox").write_bytes(Path("/bin/busybox").read_bytes())
    (site.context / "busybox").chmod(0o755)
    first = copy("busybox", to="/busybox")
    step = Run(2, instruction("RUN", "[]"), ROOT_STATE, ("/busybox", "mkdir", "/tmp", "/run", "/usr"))
    tree = site.tree(site.build(stage(first, step, base=None), chroot=chroot))
    assert sorted(path.name for path in tree.iterdir()) == [
        "busybox",
        "dev",
        "proc",
        "run",
        "sys",
        "tmp",
        "usr",
    ]


def test_an_image_cannot_lead_mounts_out_of_its_tree(site: Site, tmp_path: Path) -> None:
    (tmp_path / "victim").mkdir()
    for name in ("proc", "dev", "sys"):
        (site.context / name).mkdir()
        (site.context / name / name).symlink_to(tmp_path / "victim")
        with pytest.raises(DockerfileError, match=f"/{name} is no directory"):
            site.run(copy(name, to="/"), run("true"))
    tree = site.run(
        run(
            f"rm -rf /etc/hosts /srv; ln -s {tmp_path}/victim/hosts /etc/hosts; ln -s {tmp_path}/victim /srv"
        ),
        run("cat /etc/hosts; touch /srv/mine/x", mounts=(Mount("tmpfs", "/srv/mine"),)),
        workdir("/srv/work"),
        run("true", state=State((PATH,), (), "", "/srv/other")),
    )
    assert "buildkitsandbox" in site.output
    assert list((tmp_path / "victim").iterdir()) == []
    assert (tree / str(tmp_path).lstrip("/") / "victim/work").is_dir()


_CHANGES = (
    "rm /lib/old/1; rm -r /home; mkdir /home; echo new >/home/x; mv /lib/old/2 /lib/moved",
    "rm -r /lib/old; mkdir -m 750 /lib/old; echo 9 >/lib/old/9; ln /lib/old/9 /lib/nine; ln -s nowhere /lib/link",
    "mkfifo /fifo; mknod /dev0 c 1 3; chown 7:8 /lib/nine; chmod 4755 /bin/busybox; rm /lib/linked; mkdir /lib/linked",
    "touch /lib/linked/in; rm -r /lib/linked; echo f >/lib/linked; mv /var /moved",
    "mkdir -p /deep/a/b/c; chmod 700 /deep",
    "dd if=/dev/zero of=/holes bs=1 count=1 seek=3000000; echo >>/etc/passwd; rm /lib/link; mkdir /lib/link",
)


def test_the_tree_is_what_overlayfs_shows(site: Site) -> None:
    built = site.build(stage(*(run(command) for command in _CHANGES)))
    assembled = _listed(site.tree(built))
    found: list[dict[str, object]] = []

    def look() -> None:
        own_namespace()
        cache = Cache(site.cache)
        layers = [layer for path in built.layers if (layer := cache.find(path.parent.name)) is not None]
        with cache.making("0" * 32, lambda: None) as making:
            assert making is not None
            with shown(cache, layers, making.work / "x") as root:
                found.append(_listed(root))

    thread = threading.Thread(target=look)
    thread.start()
    thread.join()
    assert assembled == found[0]
    assert len(assembled) > 50


def _listed(root: Path) -> dict[str, object]:
    """Everything below `root` with what is to be the same in a copy."""
    found: dict[str, object] = {}
    for path in root.rglob("*"):
        status = path.lstat()
        content: object = None
        if path.is_symlink():
            content = path.readlink()
        elif path.is_file():
            content = path.read_bytes()
        found[str(path.relative_to(root))] = (
            *(status.st_mode, status.st_uid, status.st_gid, status.st_mtime_ns, status.st_rdev),
            content,
        )
    return found


def test_names_of_one_file_stay_names_of_one_file(site: Site) -> None:
    tree = site.run(
        run("echo 9 >/lib/old/9; ln /lib/old/9 /lib/nine; ln /lib/old/9 /a"), run("echo >/b; ln /b /etc/c")
    )
    one = facts(tree)
    assert one[b"a"].names == one[b"lib/nine"].names == {b"a", b"lib/nine", b"lib/old/9"}
    assert one[b"b"].names == {b"b", b"etc/c"}
    assert one[b"lib/linked"].names == {b"lib/linked", b"lib/old/0"}


# --- the cache ---

_RANDOM = "cat /proc/sys/kernel/random/uuid >"


def test_nothing_is_done_twice(site: Site) -> None:
    (site.context / "file").write_text("1")
    steps = (run(f"{_RANDOM}/1"), copy("file", to="/file"), workdir("/w"), label("x"), run(f"{_RANDOM}/2"))
    first = site.build(stage(*steps))
    assert site.build(stage(*steps)).layers == first.layers
    one, two = site.tree(first), site.tree(site.build(stage(*steps)))
    assert facts(one).keys() == facts(two).keys()
    assert (one / "2").read_text() == (two / "2").read_text()
    # The last line is another.
    edited = site.build(stage(*steps[:-1], run(f"{_RANDOM}/3")))
    assert edited.layers[:-1] == first.layers[:-1]
    # An instruction that changes no file changes no key.
    assert site.build(stage(*steps[:3], label("y"), steps[4])).layers == first.layers


def test_what_a_step_takes_counts(site: Site) -> None:
    (site.context / "file").write_text("1")
    steps = (run(f"{_RANDOM}/1"), copy("file", to="/file"), run(f"{_RANDOM}/2"))
    first = site.build(stage(*steps))
    (site.context / "file").touch()
    assert site.build(stage(*steps)).layers == first.layers
    (site.context / "file").write_text("2")
    second = site.build(stage(*steps))
    assert second.layers[:2] == first.layers[:2]
    assert not {*second.layers[2:]} & {*first.layers[2:]}
    (site.context / "file").write_text("1")
    assert site.build(stage(*steps)).layers == first.layers


@pytest.mark.parametrize(
    "changed",
    [
        State(env=(PATH, ("A", "1"))),
        State(env=(PATH,), args=(("A", "1"),)),
        State(env=(PATH,), user="app"),
        State(env=(PATH,), working_directory="/tmp"),
    ],
    ids=["env", "arg", "user", "workdir"],
)
def test_what_a_run_sees_counts(site: Site, changed: State) -> None:
    first = site.build(stage(run("true"), run(f"{_RANDOM}/tmp/1")))
    assert site.build(stage(run("true"), run(f"{_RANDOM}/tmp/1", state=changed))).layers != first.layers
    proxied = State(env=(PATH,), args=(("http_proxy", "http://proxy"),))
    assert site.build(stage(run("true"), run(f"{_RANDOM}/tmp/1", state=proxied))).layers == first.layers


def test_without_the_cache_everything_is_done_again_and_kept(site: Site) -> None:
    steps = (run(f"{_RANDOM}/1"), run(f"{_RANDOM}/2"))
    first = site.build(stage(*steps))
    second = site.build(stage(*steps), use_cache=False)
    assert not {*second.layers[1:]} & {*first.layers}
    assert second.layers[0] == first.layers[0]  # the base; --pull makes it anew
    assert site.build(stage(*steps)).layers == second.layers


def test_an_image_is_taken_again_when_it_is_another(site: Site) -> None:
    taken = []

    def image(source: ImageSource, spool: Path) -> Image:
        taken.append(source)
        return take_image(source, spool)

    step = stage(run("true"))
    first = site.build(step, image=image)
    assert site.build(step, image=image).layers == first.layers
    assert len(taken) == 1
    # Another name, but the same image: nothing is unpacked again.
    assert site.build(step, image=image, identity=lambda source: "another").layers == first.layers
    assert len(taken) == 2
    site.build(step, image=image, pull=True)
    assert len(taken) == 3


def test_the_config_of_an_image_is_kept(site: Site) -> None:
    config = ImageConfig(
        user="app",
        env=("A=1",),
        cmd=("x", "y"),
        volumes=("/v",),
        labels={"a": "b"},
        healthcheck=Healthcheck(("CMD", "true"), interval=5),
        other={"config.Unknown": [1, {"a": None}]},
    )

    def image(source: ImageSource, spool: Path) -> Image:
        return replace(take_image(source, spool), config=config)

    for _ in range(2):  # made, and from the cache
        spool = Path(tempfile.mkdtemp(dir=site.place))
        with Builder(Places(site.root), Settings(image), spool, Silent()) as builder:
            assert builder.base_config(BUSYBOX) == config


def test_link_does_not_depend_on_what_is_below(site: Site) -> None:
    (site.context / "file").write_text("1")
    linked = copy("file", to="/lib/old/file", link=True)
    one = site.build(stage(run("echo 1 >/1"), linked))
    two = site.build(stage(run("echo 2 >/2"), linked))
    assert one.layers[-1] == two.layers[-1]
    tree = site.tree(two)
    assert all((tree / name).is_file() for name in ("lib/old/0", "lib/old/file", "2"))


def test_a_failing_step_leaves_nothing_but_what_is_complete(
    site: Site, capfd: pytest.CaptureFixture[str]
) -> None:
    good = run(f"{_RANDOM}/1", line=2)
    bad = run("echo one; echo two >&2; touch /half; exit 3", line=7)
    with pytest.raises(
        DockerfileError, match=r"^Dockerfile:7:1: RUN has failed with exit status 3; see its output"
    ):
        site.build(stage(good, bad), output=None)
    assert capfd.readouterr().err == "one\ntwo\n"
    assert site.left() == []
    assert "trusted.overlay.opaque" not in str(site.cache)
    first = site.build(stage(good))
    assert (site.tree(first) / "1").exists()
    assert not (site.tree(first) / "half").exists()
    assert len(list((site.cache / "layers").iterdir())) == 2


@pytest.mark.parametrize(
    ("argv", "reason"),
    [
        (("/nothing",), "exit status 127: there is no such program"),
        (("/etc/passwd",), "exit status 126: the program cannot be executed"),
        (("/bin/sh", "-c", "sh -c 'kill -9 $$'; exit $?"), "exit status 137: killed by signal 9"),
    ],
)
def test_programs_that_cannot_be_run(site: Site, argv: tuple[str, ...], reason: str) -> None:
    step = Run(1, instruction("RUN", "[]"), ROOT_STATE, argv)
    with pytest.raises(DockerfileError, match=reason):
        site.build(stage(step))


def test_many_layers(site: Site) -> None:
    """More than one mount takes."""
    numbers = range(1, 131)
    tree = site.run(*(run(f"echo {n} >/{n % 7}; rm -f /{(n + 3) % 7}; echo >>/all", line=n) for n in numbers))
    there: set[int] = set()
    for number in numbers:
        there = (there | {number % 7}) - {(number + 3) % 7}
    assert (tree / "all").read_text() == "\n" * 130
    assert {int(path.name) for path in tree.iterdir() if path.name.isdigit()} == there


# --- mounts ---


@BOTH
def test_bind_mounts(site: Site, chroot: bool) -> None:
    (site.context / "d/e").mkdir(parents=True)
    (site.context / "d/e/file").write_text("content")
    other = stage(run("mkdir /made; echo made >/made/file; ln -s made /link"), name="other")
    steps = (
        run(
            "ls /all /all/d; cat /all/d/e/file; touch /all/x || echo read-only",
            mounts=(bind_mount("/all", read_only=True),),
        ),
        run("echo x >/all/new; echo y >/all/d/e/file; cat /all/d/e/file", mounts=(bind_mount("/all"),)),
        run("cat /one", mounts=(bind_mount("/one", source="/d/e/file", read_only=True),)),
        run(
            "cat /o/file; echo changed >/o/file; cat /o/file",
            mounts=(bind_mount("/o", origin=StageSource(0), source="/link"),),
        ),
        run(
            "ls /o; cat /o/file",
            mounts=(bind_mount("o", origin=StageSource(0), source="/made", read_only=True),),
        ),
    )
    tree = site.tree(site.build(other, stage(*steps, index=1), chroot=chroot))
    assert site.output.replace("\n", " ").replace("touch: /all/x: Read-only file system ", "") == (
        "/all: d  /all/d: e contentread-only y contentmade changed file made "
    )
    assert not {"all", "one", "o"} & {path.name for path in tree.iterdir()}
    assert (site.context / "d/e/file").read_text() == "content"
    assert not (site.context / "new").exists()


def test_a_bind_mount_without_its_source(site: Site) -> None:
    other = stage(run("true"), name="other")
    step = run("true", line=4, mounts=(bind_mount("/x", origin=StageSource(0), source="/nothing"),))
    with pytest.raises(DockerfileError, match=r"^Dockerfile:4:1: --mount: '/nothing' is not there"):
        site.build(other, stage(step, index=1))


def test_what_a_bind_mount_shows_counts(site: Site) -> None:
    (site.context / "used").mkdir()
    (site.context / "used/1").write_text("1")
    step = run(f"{_RANDOM}/1", mounts=(bind_mount("/m", source="used"),))
    first = site.build(stage(step))
    (site.context / "unused").write_text("x")
    assert site.build(stage(step)).layers == first.layers
    (site.context / "used/1").write_text("2")
    assert site.build(stage(step)).layers != first.layers


@BOTH
def test_cache_mounts_last(site: Site, chroot: bool) -> None:
    cache = Mount("cache", "/c", id="/c")
    count = "echo >>/c/n; wc -l </c/n"
    tree = site.run(run(f"{count}; stat -c '%a %u:%g' /c", mounts=(cache,)), chroot=chroot)
    assert site.output == "1\n755 0:0\n"
    assert not (tree / "c").exists()
    site.build(stage(run(f"{count}; true", mounts=(cache,))), chroot=chroot)
    assert site.output == "2\n"
    site.build(
        stage(run(f"{count}; true", mounts=(Mount("cache", "/c", id="other", mode=0o700, uid=5, gid=6),))),
        chroot=chroot,
    )
    assert site.output == "1\n"
    site.build(stage(run("stat -c '%a %u:%g' /x", mounts=(Mount("cache", "/x", id="other"),))), chroot=chroot)
    assert site.output == "700 5:6\n"
    read_only = Mount("cache", "/x", id="other", read_only=True)
    site.build(stage(run("touch /x/y || echo read-only", mounts=(read_only,))), chroot=chroot)
    assert site.output.endswith("read-only\n")


def test_a_cache_mount_begins_as_its_source(site: Site) -> None:
    seed = stage(run("mkdir -m 750 /seed; echo seed >/seed/file; chown 5:6 /seed"), name="seed")
    mount = Mount("cache", "/c", id="/c", origin=StageSource(0), source="/seed")
    site.build(
        seed, stage(run("cat /c/file; stat -c '%a %u:%g' /c; echo more >/c/file", mounts=(mount,)), index=1)
    )
    assert site.output == "seed\n750 5:6\n"
    site.build(seed, stage(run("cat /c/file", mounts=(mount,)), index=1))
    assert site.output == "more\n"


@pytest.mark.parametrize(("sharing", "seen"), [("shared", "both"), ("locked", "alone"), ("private", "apart")])
def test_how_cache_mounts_are_shared(site: Site, sharing: Any, seen: str) -> None:
    """Two stages, each of which waits a moment for the other's mark in the cache."""
    mount = Mount("cache", "/c", id="shared", sharing=sharing)
    meet = Mount("cache", "/meet", id="meet")
    wait = "for i in $(seq 20); do [ -e /{} ] && break; sleep 0.1; done; "

    def step(own: str, other: str) -> Run:
        if sharing == "locked":  # who comes second sees the other's mark at once, and the first is done
            command = f"ls /c; touch /c/{own}; sleep 0.5; rm /c/{own}"
        else:
            command = f"touch /meet/{own}; {wait.format('meet/' + other)} touch /c/{own}; "
            command += f"{wait.format('c/' + other)} ls /c"
        return run(command, mounts=(mount, meet))

    site.build(
        stage(step("a", "b"), run("echo >/a"), index=0),
        stage(step("b", "a"), run("echo >/b"), index=1),
        stage(
            copy("/a", to="/a", origin=StageSource(0)), copy("/b", to="/b", origin=StageSource(1)), index=2
        ),
    )
    expected: dict[str, list[list[str]]] = {
        "both": [["a", "b", "a", "b"]],
        "alone": [[]],
        "apart": [["a", "b"], ["b", "a"]],
    }
    assert site.output.split() in expected[seen]


@BOTH
def test_tmpfs_mounts(site: Site, chroot: bool) -> None:
    step = run(
        "touch /t/x /dev/shm/y; df -m /t /dev/shm | awk '{print $1, $2}'; stat -c %a /t",
        mounts=(Mount("tmpfs", "/t", size=3 << 20), Mount("tmpfs", "/dev/shm", size=2 << 20)),
    )
    tree = site.run(step, chroot=chroot)
    assert site.output.splitlines()[1:] == ["tmpfs 3", "tmpfs 2", "1777"]
    assert not (tree / "t").exists()
    assert not (tree / "dev/shm").exists()


_SECRET = b"correct horse battery staple"


@BOTH
def test_secrets_are_seen_and_kept_nowhere(site: Site, chroot: bool, tmp_path: Path) -> None:
    mounts = (
        Mount("secret", None, id="key"),
        Mount("secret", "/etc/token", id="key", mode=0o440, uid=1000, gid=1001),
        Mount("secret", None, id="key", env="KEY"),
        Mount("secret", None, id="missing"),
    )
    step = run(
        "for f in /run/secrets/key /etc/token; do sha256sum <$f; stat -c '%a %u:%g' $f; done; "
        'printf %s "$KEY" | sha256sum; ls /run/secrets',
        mounts=mounts,
    )
    built = site.build(
        stage(step, run("ls /run/secrets /etc/token; env")), chroot=chroot, secrets={"key": _SECRET}
    )
    digest = "3aafe5e9"
    lines = site.output.splitlines()
    assert lines[1::2][:2] == ["400 0:0", "440 1000:1001"]
    assert lines[0] == lines[2] == lines[4]
    assert lines[5] == "key"
    assert _SECRET.decode() not in site.output
    assert digest is not None
    tree = site.tree(built)
    assert not (tree / "etc/token").exists()
    for path in tmp_path.rglob("*"):
        if path.is_file() and not path.is_symlink():
            assert path.read_bytes().find(_SECRET) < 0, path
    # Nor is it in the key.
    assert site.build(stage(step), chroot=chroot, secrets={"key": b"another"}).layers == built.layers[:2]
    with pytest.raises(
        DockerfileError, match="the secret 'key' is not given; give it with --secret id=key,src=FILE"
    ):
        site.build(stage(run("false", mounts=(Mount("secret", None, id="key", required=True),))))


@BOTH
def test_an_ssh_agent(site: Site, chroot: bool, tmp_path: Path) -> None:
    agent = tmp_path / "agent"
    with socket.socket(socket.AF_UNIX) as listener:
        listener.bind(f"/proc/self/fd/{os.open(tmp_path, os.O_PATH)}/agent")
        step = run(
            'echo $SSH_AUTH_SOCK; stat -c "%F %a %u" $SSH_AUTH_SOCK',
            mounts=(Mount("ssh", None, id="default", uid=1000, mode=0o600),),
            state=as_user("app"),
        )
        tree = site.run(step, chroot=chroot, agents={"default": agent})
    assert site.output == "/run/buildkit/ssh_agent.0\nsocket 600 1000\n"
    assert not (tree / "run").exists()
    with pytest.raises(DockerfileError, match="no ssh agent 'default' is forwarded; give one with --ssh"):
        site.build(stage(run("true", mounts=(Mount("ssh", None, id="default", required=True),))))


def test_who_speaks_to_the_agents_socket_speaks_to_the_agent() -> None:
    with tempfile.TemporaryDirectory() as directory, socket.socket(socket.AF_UNIX) as agent:
        agent.bind(f"{directory}/agent")
        agent.listen()

        def answer() -> None:
            for _ in range(2):
                client, _ = agent.accept()
                while data := client.recv(7):
                    client.sendall(data.upper())
                client.close()

        threading.Thread(target=answer, daemon=True).start()
        own = Path(directory, "own")
        own.mkdir()
        with forwarded(Path(directory, "agent"), own, owner=(1, 2), mode=0o640) as path:
            assert (path.stat().st_uid, path.stat().st_gid, path.stat().st_mode & 0o777) == (1, 2, 0o640)
            for word in (b"hello", b"x" * 100_000):
                with socket.socket(socket.AF_UNIX) as client:
                    client.connect(str(path))
                    threading.Thread(target=_send, args=(client, word)).start()
                    assert _received(client) == word.upper()
        with socket.socket(socket.AF_UNIX) as client, pytest.raises(ConnectionRefusedError):
            client.connect(str(path))


def _send(client: socket.socket, data: bytes) -> None:
    client.sendall(data)
    client.shutdown(socket.SHUT_WR)


def _received(client: socket.socket) -> bytes:
    found = b""
    while data := client.recv(1 << 16):
        found += data
    return found


@BOTH
def test_a_script(site: Site, chroot: bool) -> None:
    script = b'#!/bin/awk -f\nBEGIN { print "from awk" }\n'
    step = Run(1, instruction("RUN", "<<EOF"), ROOT_STATE, ("/dev/pipes/EOF",), script=script)
    tree = site.tree(site.build(stage(step), chroot=chroot))
    assert site.output == "from awk\n"
    assert list((tree / "dev").iterdir()) == []


# --- stages ---


def test_stages_that_do_not_need_each_other_are_built_side_by_side(site: Site) -> None:
    meet = (Mount("cache", "/m", id="meet"),)
    wait = "for i in $(seq 100); do [ -e /m/{} ] && exit 0; sleep 0.1; done; exit 1"
    site.build(
        stage(run(f"touch /m/a /a; {wait.format('b')}", mounts=meet), index=0),
        stage(run(f"touch /m/b; {wait.format('a')}", mounts=meet), index=1),
        stage(
            copy("/a", to="/", origin=StageSource(0)),
            run("true", mounts=(bind_mount("/x", origin=StageSource(1)),)),
            index=2,
        ),
    )


def test_a_failing_stage_stops_the_others(site: Site) -> None:
    began = time.monotonic()
    with pytest.raises(DockerfileError, match="exit status 5"):
        site.build(
            stage(run("sleep 100"), index=0),
            stage(run("sleep 0.5; exit 5"), index=1),
            stage(
                run(
                    "true",
                    mounts=(bind_mount("/a", origin=StageSource(0)), bind_mount("/b", origin=StageSource(1))),
                ),
                index=2,
            ),
        )
    assert time.monotonic() - began < 90
    assert site.left() == []


def test_a_stage_upon_a_stage(site: Site) -> None:
    first = stage(run("echo 1 >/1"), name="first")
    second = stage(run("cat /1 >/2"), index=1, base=StageSource(0))
    third = stage(copy("/2", to="/3", origin=StageSource(1)), index=2)
    built = site.build(first, second, third)
    assert (site.tree(built) / "3").read_text() == "1\n"
    assert not (site.tree(built) / "2").exists()
    assert site.build(first, second, third).layers == built.layers


def test_a_copy_that_brings_the_same_is_the_same(site: Site) -> None:
    """Also when the stage that it comes from was built anew."""

    def built(comment: str) -> tuple[Path, ...]:
        first = stage(run(f"echo same >/file; : {comment}"))
        return site.build(
            first, stage(copy("/file", to="/", origin=StageSource(0)), run(f"{_RANDOM}/r"), index=1)
        ).layers

    assert built("one") == built("two")


def test_what_the_cache_is_told_of_a_layer(site: Site) -> None:
    built = site.build(stage(run("echo hello >/x")))
    cache = Cache(site.cache)
    layers = [cache.find(path.parent.name) for path in built.layers]
    assert None not in layers
    assert [layer.whole for layer in layers if layer is not None] == [True, False]
    assert trees_of([layer for layer in layers if layer is not None]) == list(built.layers)


def test_an_unknown_user(site: Site) -> None:
    with pytest.raises(
        ConversionError, match=r"^Dockerfile:1:1: USER 'nobody-here' is not in the image's /etc/passwd"
    ):
        site.build(stage(run("true", state=as_user("nobody-here"))))


# --- the shell at a failed step ---


def test_a_shell_at_the_step_that_failed(site: Site) -> None:
    """On a terminal: what the step has done is there, and what it was given."""
    program = (
        "import sys\n"
        "from pathlib import Path\n"
        "from tests.building import *\n"
        "from converter.dockerfile.model import Mount, DockerfileError\n"
        "state = State(env=(PATH, ('A', '1')), user='app', working_directory='/tmp')\n"
        "step = run('echo half >/tmp/half; exit 3', state=state, mounts=(Mount('tmpfs', '/t'),))\n"
        "site = Site(Path(sys.argv[1]))\n"
        "try:\n"
        "    site.build(stage(step), debug_shell=True, output=None)\n"
        "except DockerfileError as error:\n"
        "    print(f'ended: {error}')\n"
    )
    child, terminal = pty.fork()
    if child == 0:
        os.execv(sys.executable, [sys.executable, "-c", program, str(site.place)])
    shown = _until(terminal, b"$ ")
    assert b"a shell at the failed step" in shown
    for command, answer in (
        (b"cat /tmp/half", b"half"),
        (b"id -u; pwd; echo A=$A", b"1000\r\n/tmp\r\nA=1"),
        (b"touch /t/x && ls /t", b"x"),
    ):
        os.write(terminal, command + b"\n")
        assert answer in _until(terminal, b"$ ")
    os.write(terminal, b"exit\n")
    assert b"ended: Dockerfile:1:1: RUN has failed with exit status 3" in _until(terminal, None)
    os.waitpid(child, 0)
    assert site.left() == []


def test_no_shell_without_a_terminal(site: Site) -> None:
    read_end, write_end = os.pipe()
    os.close(write_end)
    before = os.dup(0)
    os.dup2(read_end, 0)
    try:
        with pytest.raises(ConversionError, match="--debug-shell is for a terminal"):
            site.build(stage(run("false")), debug_shell=True)
    finally:
        os.dup2(before, 0)
        os.close(before)
        os.close(read_end)


def _until(terminal: int, end: bytes | None) -> bytes:
    """What comes from a terminal until it says `end`; None: until it is closed."""
    shown = b""
    while end is None or not shown.rstrip(b"\x1b[6n").endswith(end):
        try:
            data = os.read(terminal, 4096)
        except OSError:  # closed
            break
        if not data:
            break
        shown += data
    return shown
