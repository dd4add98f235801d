"""One image, six sources, one tree; and a daemon that looks afterwards as it did before."""

from __future__ import annotations

import hashlib
import json
import os
import signal
import stat
import subprocess
import time
from pathlib import Path
from typing import Any

import pytest

from tests import lab

pytestmark = pytest.mark.lab


def tree(root: Path) -> dict[str, tuple[object, ...]]:
    """Every path with type, mode, owner, time to the second, link target, xattrs, link count and content."""
    found: dict[str, tuple[object, ...]] = {}
    for directory, names, files in os.walk(root):
        for name in [".", *names, *files] if directory == str(root) else [*names, *files]:
            path = Path(directory, name)
            status = path.lstat()
            content = ""
            if stat.S_ISLNK(status.st_mode):
                content = str(path.readlink())
            elif stat.S_ISREG(status.st_mode):
                content = hashlib.sha256(path.read_bytes()).hexdigest()
            xattrs = {
                n: os.getxattr(path, n, follow_symlinks=False)
                for n in os.listxattr(path, follow_symlinks=False)
            }
            found[str(path.relative_to(root))] = (
                stat.filemode(status.st_mode),
                status.st_uid,
                status.st_gid,
                int(status.st_mtime),
                status.st_rdev if stat.S_ISCHR(status.st_mode) or stat.S_ISBLK(status.st_mode) else 0,
                content,
                tuple(sorted(xattrs.items())),
                status.st_nlink if not stat.S_ISDIR(status.st_mode) else 0,
            )
    return found


def converted(
    root: Path, label: str, *arguments: str, docker_host: str = "unix:///nowhere"
) -> dict[str, tuple[object, ...]]:
    command: list[str | Path] = [
        ".venv/bin/docker2nspawn",
        "convert",
        "--root",
        root / label,
        "--name",
        "same",
        "--json",
        *arguments,
    ]
    result = json.loads(lab.run(*command, DOCKER_HOST=docker_host).stdout)
    assert result["name"] == "same"
    return tree(root / label / "var/lib/machines/same")


@pytest.fixture
def root(work: Path, request: pytest.FixtureRequest) -> Path:
    path = work / f"root-{abs(hash(request.node.name))}"
    path.mkdir()
    return path


@pytest.fixture
def prepared(work: Path, docker_host: str, root: Path) -> str:
    """An image with everything that trees are made of, also what `docker export` would spoil."""
    context = root / "context"
    context.mkdir()
    (context / "Dockerfile").write_text(
        "FROM debian:bookworm\n"
        "RUN rm -rf /usr/share/doc /usr/share/man && mkdir -p /a/b/c && echo one >/a/b/c/one && ln /a/b/c/one /a/two"
        " && ln -s b/c /a/link && mkfifo /a/fifo && touch -d @1000000000 /a/old && chmod 1777 /a/b"
        " && mknod /a/null c 1 3 && dd if=/dev/zero of=/a/sparse bs=1 count=1 seek=1000000\n"
        "RUN rm -rf /a/b && mkdir /a/b && echo new >/a/b/new && rm /etc/issue && mkdir -p /etc/issue/x"
        " && chmod 4755 /usr/bin/wall && chown 70000:80000 /a/old && touch -d @1500000000 /etc\n"
        "RUN rm -r /etc/issue && ln -s os-release /etc/issue && echo x >>/a/two\n"
        "COPY Dockerfile /srv/\n"
        'CMD ["/bin/true"]\n'
    )
    if lab.run(
        "docker", "image", "inspect", "debian:bookworm", check=False, DOCKER_HOST=docker_host
    ).returncode:
        lab.run(
            "docker",
            "import",
            lab.root_tarball("debian"),
            "debian:bookworm",
            DOCKER_HOST=docker_host,
            timeout=300,
        )
    lab.run("docker", "build", "-t", "lab/tree", context, DOCKER_HOST=docker_host, DOCKER_BUILDKIT="0")
    return docker_host


def test_six_sources_give_one_tree(
    prepared: str,
    root: Path,
    plain_registry: lab.Registry,
    private_registry: lab.Registry,
    systemd_host: lab.Host,
) -> None:
    saved = root / "saved.tar"
    lab.run("docker", "save", "-o", saved, "lab/tree", DOCKER_HOST=prepared)
    lab.run("docker", "create", "--name", "lab-tree", "lab/tree", DOCKER_HOST=prepared)
    try:
        lab.run("skopeo", "copy", f"docker-archive:{saved}", f"oci:{root}/oci:v1")
        lab.run("skopeo", "copy", f"oci:{root}/oci:v1", f"oci-archive:{root}/oci.tar:v1")
        for registry in (plain_registry, private_registry):
            credentials = ["--dest-creds", registry.login] if registry.login else []
            target = f"docker://{registry.address}/lab/tree:v1"
            lab.run("skopeo", "copy", "--dest-tls-verify=false", *credentials, f"oci:{root}/oci:v1", target)
        login = root / "docker"
        lab.run("docker", "--config", login, "login", private_registry.address, "-u", "lab", "-p", "secret")
        lab.run("zstd", "-q", saved, "-o", root / "saved.tar.zst")
        loaded = lab.run("docker", "load", "-i", saved, DOCKER_HOST=systemd_host.docker).stdout
        assert "lab/tree" in loaded
        new = root / "saved-by-26.tar"
        lab.run("docker", "save", "-o", new, "lab/tree", DOCKER_HOST=systemd_host.docker)
        os.environ["DOCKER_CONFIG"] = str(login)

        expected = converted(root, "daemon", "docker-daemon:lab/tree", docker_host=prepared)
        assert expected["a/old"][:4] == ("-rw-r--r--", 70000, 80000, 1000000000)
        assert expected["a/two"][-1] == 1
        others = {
            "container": converted(root, "container", "container:lab-tree", docker_host=prepared),
            "archive": converted(root, "archive", f"docker-archive:{saved}"),
            "archive-zst": converted(root, "archive-zst", str(root / "saved.tar.zst")),
            "archive-26": converted(root, "archive-26", f"docker-archive:{new}"),
            "daemon-26": converted(
                root, "daemon-26", "docker-daemon:lab/tree", docker_host=systemd_host.docker
            ),
            "oci": converted(root, "oci", f"oci:{root}/oci:v1"),
            "oci-archive": converted(root, "oci-archive", f"oci-archive:{root}/oci.tar:v1"),
            "registry": converted(root, "registry", f"docker://{plain_registry.address}/lab/tree:v1"),
            "private": converted(root, "private", f"docker://{private_registry.address}/lab/tree:v1"),
        }
        for source, found in others.items():
            assert found == expected, source
    finally:
        os.environ.pop("DOCKER_CONFIG", None)
        lab.run("docker", "rm", "lab-tree", DOCKER_HOST=prepared)


def test_the_tree_is_that_of_an_export_but_for_its_stubs(prepared: str, root: Path) -> None:
    """`docker export` is the independent witness; what it is known to change is left out on both sides."""
    ours = converted(root, "ours", "docker-daemon:lab/tree", docker_host=prepared)
    lab.run("docker", "create", "--name", "lab-export", "lab/tree", DOCKER_HOST=prepared)
    try:
        lab.run("docker", "export", "-o", root / "export.tar", "lab-export", DOCKER_HOST=prepared)
    finally:
        lab.run("docker", "rm", "lab-export", DOCKER_HOST=prepared)
    (root / "export").mkdir()
    lab.run("tar", "-C", root / "export", "--numeric-owner", "-xpf", root / "export.tar")
    theirs = tree(root / "export")
    spoiled = {".", ".dockerenv", "dev", "etc", "etc/hosts", "etc/hostname", "etc/resolv.conf", "etc/mtab"}

    def comparable(found: dict[str, tuple[object, ...]]) -> dict[str, tuple[object, ...]]:
        return {
            path: facts
            for path, facts in found.items()
            if path not in spoiled and not path.startswith(("dev/", "usr/lib/docker2nspawn"))
        }

    assert comparable(ours) == comparable(theirs)


def test_a_container_with_changes(prepared: str, root: Path) -> None:
    """What a container added, changed, deleted and replaced is in its machine, whether it runs or not."""
    script = (
        "echo added >/a/added; echo changed >>/a/two; rm /a/old; rm -r /a/b; mkdir /a/b; echo inside >/a/b/inside;"
        "rm /etc/issue; mkdir /etc/issue; chown 33:33 /srv; ln /a/added /a/again; mkdir -p /new/dir; sleep 1000"
    )
    command = ("docker", "run", "-d", "--name", "lab-changed", "lab/tree", "/bin/sh", "-c", script)
    lab.run(*command, DOCKER_HOST=prepared)
    try:
        lab.wait_until("the changes", lambda: "/new/dir" in lab.run("docker", "diff", "lab-changed").stdout)
        running = converted(root, "running", "container:lab-changed", docker_host=prepared)
        lab.run("docker", "kill", "lab-changed", DOCKER_HOST=prepared)
        stopped = converted(root, "stopped", "container:lab-changed", docker_host=prepared)
        assert {
            path for path in running.keys() | stopped.keys() if running.get(path) != stopped.get(path)
        } == set()
        lab.run("docker", "export", "-o", root / "export.tar", "lab-changed", DOCKER_HOST=prepared)
        names = lab.run("tar", "-tf", root / "export.tar").stdout.split()
        exported = {name.strip("/") for name in names if name.startswith(("a/", "etc/", "new", "srv"))}
        ours = {path for path in running if path.startswith(("a/", "etc/", "new", "srv"))}
        stubs = {"etc/hosts", "etc/hostname", "etc/resolv.conf", "etc/mtab"}
        assert ours - stubs == {name for name in exported if name not in {"a", "etc", *stubs}}
        assert running["srv"][1:3] == (33, 33)
        assert running["a/again"][-1] == 2
        settings = (root / "running/var/lib/machines/same.nspawn").read_text()
        assert "echo added" in settings
    finally:
        lab.run("docker", "rm", "-f", "lab-changed", DOCKER_HOST=prepared)


def test_a_container_whose_image_is_gone(prepared: str, root: Path) -> None:
    """Its export has to do: without the engine's stubs, and with a word about what that cannot give."""
    context = root / "gone"
    context.mkdir()
    (context / "Dockerfile").write_text("FROM lab/tree\nRUN echo gone >/gone\n")
    lab.run("docker", "build", "-t", "lab/gone", context, DOCKER_HOST=prepared, DOCKER_BUILDKIT="0")
    lab.run("docker", "create", "--name", "lab-gone", "lab/gone", DOCKER_HOST=prepared)
    try:
        lab.run("docker", "rmi", "-f", "lab/gone", DOCKER_HOST=prepared)
        inspected = lab.run("docker", "inspect", "lab-gone", DOCKER_HOST=prepared)
        image_id = json.loads(inspected.stdout)[0]["Image"]
        gone = lab.run("docker", "image", "inspect", image_id, DOCKER_HOST=prepared, check=False)
        assert gone.returncode != 0
        found = converted(root, "gone-machine", "container:lab-gone", docker_host=prepared)
        assert found["gone"][0] == "-rw-r--r--"
        assert found["a/old"][:4] == ("-rw-r--r--", 70000, 80000, 1000000000)
        assert not {".dockerenv", "dev/console", "dev/pts", "dev/shm"} & found.keys()
        record = json.loads((root / "gone-machine/var/lib/docker2nspawn/machines/same.json").read_text())
        (loss,) = (note["text"] for note in record["notes"] if note["subject"] == "the source")
        assert "/etc/resolv.conf" in loss
    finally:
        lab.run("docker", "rm", "lab-gone", DOCKER_HOST=prepared)


def test_the_engine_that_docker_itself_would_ask(prepared: str, root: Path, systemd_host: lab.Host) -> None:
    """DOCKER_CONTEXT, and the current context of `docker context use`, name the engine when DOCKER_HOST does not."""
    fixture = Path("fixtures/hello.tar")
    for host, name in ((prepared, "lab/only-here"), (systemd_host.docker, "lab/only-there")):
        lab.run("docker", "load", "-i", fixture, DOCKER_HOST=host)
        lab.run("docker", "tag", "hello:latest", name, DOCKER_HOST=host)
    (root / "config").mkdir()
    (root / "config/config.json").write_text("{}")  # without it the SDK finds no contexts
    docker: dict[str, Any] = {"DOCKER_CONFIG": str(root / "config"), "DOCKER_HOST": ""}
    lab.run("docker", "context", "create", "there", "--docker", f"host={systemd_host.docker}", **docker)
    plan = (".venv/bin/docker2nspawn", "plan", "--json")
    assert lab.run(*plan, "docker-daemon:lab/only-here", **docker).returncode == 0
    lab.run(*plan, "docker-daemon:lab/only-there", DOCKER_CONTEXT="there", **docker)
    lab.run("docker", "context", "use", "there", **docker)
    lab.run(*plan, "docker-daemon:lab/only-there", **docker)
    for source in ("docker-daemon:lab/only-here", "container:none"):
        missing = lab.run(*plan, source, check=False, **docker)
        assert missing.returncode == 1
        assert missing.stderr.startswith("docker2nspawn: the Docker daemon has no ")
    unknown = lab.run(*plan, "docker-daemon:x", check=False, DOCKER_CONTEXT="nowhere", **docker)
    assert "docker context ls" in unknown.stderr


def _daemon_state(docker_host: str) -> list[str]:
    containers = lab.run(
        "docker", "ps", "-a", "--no-trunc", "--format={{.ID}} {{.Names}}", DOCKER_HOST=docker_host
    )
    images = lab.run(
        "docker", "images", "-a", "--no-trunc", "--format={{.ID}} {{.Tag}}", DOCKER_HOST=docker_host
    )
    return sorted((containers.stdout + images.stdout).splitlines())


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_interrupted_nothing_is_left(prepared: str, root: Path, number: signal.Signals) -> None:
    """Signals at many instants; a run that was faster than its signal has finished, which is no fault."""
    before = _daemon_state(prepared)
    environment = {**os.environ, "DOCKER_HOST": prepared}
    interrupted = 0
    for delay in (0.4, 0.5, 0.6, 0.8, 1.0, 1.3, 1.6, 2.0):
        target = root / str(delay)
        target.mkdir()
        command = [".venv/bin/docker2nspawn", "convert", "docker-daemon:lab/tree", "--root", str(target)]
        process = subprocess.Popen(
            command, env=environment, stderr=subprocess.PIPE, stdout=subprocess.PIPE, text=True
        )
        time.sleep(delay)
        process.send_signal(number)
        _, errors = process.communicate(timeout=60)
        assert _daemon_state(prepared) == before
        if process.returncode == 0:
            continue
        interrupted += 1
        assert process.returncode == 130, errors
        assert errors == "docker2nspawn: interrupted; nothing was installed\n"
        assert list(target.iterdir()) == []
    assert interrupted >= 3
