"""`batch --scheduler`: a list done by the workers of a Dask cluster, and clusters that do not last."""

from __future__ import annotations

import gzip
import hashlib
import json
import os
import shutil
import signal
import sys
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from tests.dask_cluster import Batch, Cluster, Ended, cluster, until
from tests.layers import directory, file, hardlink, symlink, tar
from tests.registry_server import Served, serve
from tests.test_registry import OCI_MANIFEST
from tests.test_wrong_input import FIXTURES, cli, saved
from tests.trees import facts

pytestmark = pytest.mark.timeout(180)


@pytest.fixture
def three(tmp_path: Path) -> Iterator[Cluster]:
    with cluster(tmp_path / "cluster", "one", "two", "three") as running:
        yield running


@pytest.fixture
def served() -> Iterator[Served]:
    with serve() as running:
        yield running


def archive(place: Path, name: str, **config: object) -> Path:
    """An image of two layers with something of everything, none of which another image has."""
    own = name.encode()
    lower = tar(directory("d", mode=0o2750), *(file(f"d/{n}", own * n, mode=0o666) for n in range(250)))
    upper = tar(file("large", own * 300_000), hardlink("same", "large"), symlink("s", "d"), file("d/.wh.7"))
    saved(place / f"{name}.tar", {"config": {"Cmd": ["/x"], **config}}, [lower, upper])
    return place / f"{name}.tar"


def image(served: Served, tag: str) -> str:
    """An image of one layer in a registry, and the digest of that layer."""
    layer = tar(file("big", tag.encode() * 50_000))
    packed = gzip.compress(layer, 0, mtime=0)
    diff_id = f"sha256:{hashlib.sha256(layer).hexdigest()}"
    config = {"os": "linux", "architecture": "amd64", "rootfs": {"type": "layers", "diff_ids": [diff_id]}}
    kind = "application/vnd.oci.image"
    descriptor = served.add(packed)
    manifest = {
        "schemaVersion": 2,
        "config": {"mediaType": f"{kind}.config.v1+json", **served.add(json.dumps(config).encode())},
        "layers": [{"mediaType": f"{kind}.layer.v1.tar+gzip", **descriptor}],
    }
    served.add_manifest(manifest, OCI_MANIFEST, tag)
    return str(descriptor["digest"])


def machines(root: Path) -> set[str]:
    """What is in ROOT/var/lib/machines, but for the cache, which stays."""
    return {path.name for path in (root / "var/lib/machines").iterdir()} - {".docker2nspawn-cache"}


def staged(root: Path) -> list[Path]:
    """The machines that are being made."""
    return [*(root / "var/lib/machines").glob(".#docker2nspawn-*")]


def whole(*names: str) -> set[str]:
    """What there is of machines that are whole."""
    return {end for name in names for end in (name, f"{name}.nspawn")}


def without_hosts_and_times(ended: Ended) -> list[dict[str, Any]]:
    return [
        {key: value for key, value in outcome.items() if key not in {"worker", "seconds"}}
        for outcome in ended.report["outcomes"]
    ]


def settings(root: Path) -> dict[str, str]:
    return {path.name: path.read_text() for path in (root / "var/lib/machines").glob("*.nspawn")}


def test_the_same_as_without_a_cluster(tmp_path: Path, three: Cluster) -> None:
    """As root trees have owners too, and what images share is made once."""
    lines = [
        str(archive(tmp_path, "web", Env=["A=1"], ExposedPorts={"80/tcp": {}})),
        str(archive(tmp_path, "db", StopSignal="SIGQUIT")),
        f"oci:{FIXTURES / 'multi.oci'} multi",
        f"oci-archive:{FIXTURES / 'tricky.oci.tar.gz'} tricky",
        f"{FIXTURES / 'hello.tar'} hello",
        f"{archive(tmp_path, 'again')} again",
        f"{tmp_path / 'again.tar'} once-more",
    ]
    broken = bytearray(archive(tmp_path, "corrupt").read_bytes())
    broken[len(broken) // 2] ^= 1
    (tmp_path / "corrupt.tar").write_bytes(broken)
    lines.insert(2, str(tmp_path / "corrupt.tar"))
    root = tmp_path / "root"  # notes have its path
    expected = Batch(tmp_path, lines, root).end()
    root.rename(tmp_path / "near")
    made = Batch(tmp_path, lines, root, "--scheduler", three.address).end()
    assert (made.status, expected.status) == (1, 1), made.stderr
    assert without_hosts_and_times(made) == without_hosts_and_times(expected)
    assert made.outcome("corrupt")["state"] == "failed"
    assert {outcome["worker"] for outcome in made.report["outcomes"]} <= {"one", "two", "three"}
    assert made.report["jobs"] == 3
    names = {outcome["name"] for outcome in made.report["outcomes"]} - {"corrupt"}
    assert machines(root) == machines(tmp_path / "near") == whole(*names)
    assert settings(root) == settings(tmp_path / "near")
    for name in names:
        far, near = (facts(side / "var/lib/machines" / name) for side in (root, tmp_path / "near"))
        assert far == near, name
    again = Batch(tmp_path, lines, root, "--scheduler", three.address, "--resume").end()
    assert {state for name, state in again.states().items() if name != "corrupt"} == {"complete"}


def test_a_dry_run(tmp_path: Path, three: Cluster) -> None:
    lines = [str(archive(tmp_path, "web")), str(FIXTURES / "hello.tar")]
    made = Batch(tmp_path, lines, tmp_path / "root", "--scheduler", three.address, "--dry-run").end()
    assert (made.status, set(made.states().values())) == (0, {"planned"}), made.stderr
    assert not (tmp_path / "root").exists()


def test_several_threads_of_one_process(tmp_path: Path) -> None:
    names = [f"m{number}" for number in range(8)]
    lines = [str(archive(tmp_path, name)) for name in names]
    with cluster(tmp_path / "cluster") as running:
        running.add("one", threads=4)
        made = Batch(tmp_path, lines, tmp_path / "far", "--scheduler", running.address).end()
    expected = Batch(tmp_path, lines, tmp_path / "near").end()
    assert (made.status, expected.status) == (0, 0), made.stderr
    assert made.report["jobs"] == 4
    for name in names:
        far, near = (facts(tmp_path / side / "var/lib/machines" / name) for side in ("far", "near"))
        assert far == near, name


def test_a_worker_that_is_killed_loses_nothing(tmp_path: Path, three: Cluster, served: Served) -> None:
    names = [f"m{number}" for number in range(6)]
    slow = image(served, "m0")
    for name in names[1:]:
        image(served, name)
    served.faults[slow] = ["stall"]
    lines = [f"docker://{served.address}/test/image:{name} {name}" for name in names]
    root = tmp_path / "root"
    batch = Batch(tmp_path, lines, root, "--scheduler", three.address)
    assert served.stalled.wait(60)
    until(lambda: whole(*names[1:]) <= machines(root) and len(staged(root)) == 1)
    [victim] = [name for name in three.processes if _has_open(three, name, staged(root)[0])]
    three.kill(victim)
    ended = batch.end()
    assert (ended.status, set(ended.states().values())) == (0, {"done"}), ended.stderr
    assert ended.outcome("m0")["worker"] != victim
    assert machines(root) == whole(*names)


def _has_open(running: Cluster, name: str, path: Path) -> bool:
    """Does this worker hold the lock of a staging directory?"""
    descriptors = Path(f"/proc/{running.processes[name].pid}/fd")
    return any(entry.is_symlink() and entry.readlink() == path for entry in descriptors.iterdir())


def test_a_worker_that_is_killed_when_it_has_just_installed(tmp_path: Path, three: Cluster) -> None:
    """Its task is done a second time, by another; the machine is there, so that has nothing to do."""
    # The worker stops between the installation and its word of it.
    (tmp_path / "sitecustomize.py").write_text(
        "import os, time\n"
        "def install(*arguments, **more):\n"
        "    from converter.install import install\n"
        "    install(*arguments, **more)\n"
        f"    open({str(tmp_path / 'installed')!r}, 'x').close()\n"
        "    time.sleep(60)\n"
        "if os.environ.get('D2N_STOP_AFTER_INSTALLING'):\n"
        "    import converter.conversion\n"
        "    converter.conversion.install = install\n"
    )
    for name in ("two", "three"):
        three.kill(name)
    three.kill("one")
    path = f"{tmp_path}:{Path(__file__).parent.parent}"
    three.add("slow", PYTHONPATH=path, D2N_STOP_AFTER_INSTALLING="1")
    root = tmp_path / "root"
    batch = Batch(tmp_path, [str(archive(tmp_path, "web"))], root, "--scheduler", three.address)
    until((tmp_path / "installed").exists)
    three.add("other")
    three.kill("slow")
    ended = batch.end()
    assert (ended.status, ended.states()) == (0, {"web": "done"}), ended.stderr
    assert ended.outcome("web")["worker"] == "other"
    assert ended.outcome("web")["notes"]
    # What the dead one had left is taken away by whoever comes next.
    assert cli("convert", FIXTURES / "hello.tar", "--root", root, "--name", "next").returncode == 0
    assert machines(root) == whole("web", "next")


def test_what_kills_every_worker_fails_with_that_reason(tmp_path: Path) -> None:
    (tmp_path / "sitecustomize.py").write_text(
        "import os, signal\n"
        "if os.environ.get('D2N_DEADLY'):\n"
        "    import converter.conversion\n"
        "    def die(*arguments, **more):\n"
        "        os.kill(os.getpid(), signal.SIGKILL)\n"
        "    converter.conversion._unpack = die\n"
    )
    path = f"{tmp_path}:{Path(__file__).parent.parent}"
    with cluster(tmp_path / "cluster") as running:
        running.add(*(f"w{number}" for number in range(4)), PYTHONPATH=path, D2N_DEADLY="1")
        lines = [str(archive(tmp_path, "web"))]
        ended = Batch(tmp_path, lines, tmp_path / "root", "--scheduler", running.address).end()
    assert (ended.status, ended.states()) == (1, {"web": "failed"}), ended.stderr
    assert "4 workers died of it" in ended.outcome("web")["reason"]
    assert "memory" in ended.outcome("web")["remedy"]


@pytest.mark.parametrize("address", ["tcp://127.0.0.1:1", "127.0.0.1:1", "nowhere.invalid:8786"])
def test_no_scheduler(tmp_path: Path, address: str) -> None:
    begun = time.monotonic()
    ended = Batch(tmp_path, [str(FIXTURES / "hello.tar")], tmp_path / "root", "--scheduler", address).end()
    assert time.monotonic() - begun < 20
    assert ended.status == 1
    assert ended.stderr.startswith(f"docker2nspawn: no Dask scheduler at {address}: nobody answers there; ")
    assert ended.stderr.count("\n") == 1
    assert not (tmp_path / "root").exists()


@pytest.mark.parametrize("address", ["", "what://x", "tcp://127.0.0.1:999999", "tcp://", "a b"])
def test_no_address(tmp_path: Path, address: str) -> None:
    ended = Batch(tmp_path, [str(FIXTURES / "hello.tar")], tmp_path / "root", "--scheduler", address).end()
    assert ended.status in {1, 2}
    assert ended.stderr.startswith("docker2nspawn: ")
    assert ended.stderr.count("\n") == 1, ended.stderr


def test_no_workers(tmp_path: Path) -> None:
    with cluster(tmp_path / "cluster") as running:
        ended = Batch(
            tmp_path, [str(FIXTURES / "hello.tar")], tmp_path / "root", "--scheduler", running.address
        ).end()
    assert ended.status == 1
    assert f"has no workers; start some: dask worker {running.address}" in ended.stderr
    assert ended.stderr.count("\n") == 1, ended.stderr


def test_a_worker_with_another_docker2nspawn(tmp_path: Path) -> None:
    other = tmp_path / "other/docker2nspawn-9.9.dist-info"
    other.mkdir(parents=True)
    (other / "METADATA").write_text("Metadata-Version: 2.1\nName: docker2nspawn\nVersion: 9.9\n")
    with cluster(tmp_path / "cluster", "good") as running:
        running.add("bad", PYTHONPATH=f"{other.parent}:{Path(__file__).parent.parent}")
        ended = Batch(
            tmp_path, [str(FIXTURES / "hello.tar")], tmp_path / "root", "--scheduler", running.address
        ).end()
    assert ended.status == 1
    assert "docker2nspawn: worker tcp://127.0.0.1:" in ended.stderr
    assert "has docker2nspawn 9.9, and this is " in ended.stderr
    assert ended.stderr.count("\n") == 1, ended.stderr


def test_a_worker_with_another_docker2nspawn_that_comes_later(tmp_path: Path, served: Served) -> None:
    served.faults[image(served, "slow")] = ["stall"]
    lines = [f"docker://{served.address}/test/image:slow slow"]
    lines += [str(archive(tmp_path, f"m{number}")) for number in range(3)]
    other = tmp_path / "other/docker2nspawn-9.9.dist-info"
    other.mkdir(parents=True)
    (other / "METADATA").write_text("Metadata-Version: 2.1\nName: docker2nspawn\nVersion: 9.9\n")
    with cluster(tmp_path / "cluster", "good") as running:
        batch = Batch(tmp_path, lines, tmp_path / "root", "--scheduler", running.address)
        assert served.stalled.wait(60)
        running.add("bad", PYTHONPATH=f"{other.parent}:{Path(__file__).parent.parent}")
        until(lambda: "failed m2" in batch.stderr())
        served.release.set()
        ended = batch.end()
    assert ended.status == 1
    assert ended.states() == {"slow": "done", "m0": "failed", "m1": "failed", "m2": "failed"}
    for name in ("m0", "m1", "m2"):
        assert "has docker2nspawn 9.9, and this is " in ended.outcome(name)["reason"]
        assert ended.outcome(name)["remedy"] == "install the same version of docker2nspawn on all"
    assert machines(tmp_path / "root") == whole("slow")


def test_the_scheduler_needs_nothing_of_docker2nspawn(tmp_path: Path) -> None:
    (tmp_path / "without/converter").mkdir(parents=True)
    (tmp_path / "without/converter/__init__.py").write_text("raise ModuleNotFoundError('converter')\n")
    lines = [str(FIXTURES / "hello.tar"), str(archive(tmp_path, "web"))]
    with cluster(tmp_path / "cluster", "one", PYTHONPATH=str(tmp_path / "without")) as running:
        ended = Batch(tmp_path, lines, tmp_path / "root", "--scheduler", running.address).end()
    assert (ended.status, set(ended.states().values())) == (0, {"done"}), ended.stderr


def test_a_worker_without_docker2nspawn(tmp_path: Path) -> None:
    (tmp_path / "without").mkdir()
    (tmp_path / "without/sitecustomize.py").write_text(  # tests may run where it is installed
        "from importlib import metadata\n"
        "found = metadata.version\n"
        "def version(name):\n"
        "    if name == 'docker2nspawn':\n"
        "        raise metadata.PackageNotFoundError(name)\n"
        "    return found(name)\n"
        "metadata.version = version\n"
    )
    with cluster(tmp_path / "cluster", "good") as running:
        running.add("bad", PYTHONPATH=str(tmp_path / "without"))
        ended = Batch(
            tmp_path, [str(FIXTURES / "hello.tar")], tmp_path / "root", "--scheduler", running.address
        ).end()
    assert ended.status == 1
    assert "docker2nspawn: worker tcp://127.0.0.1:" in ended.stderr
    assert " lacks docker2nspawn, and this is " in ended.stderr
    assert ended.stderr.count("\n") == 1, ended.stderr


def test_without_distributed(tmp_path: Path) -> None:
    (tmp_path / "without/distributed").mkdir(parents=True)
    (tmp_path / "without/distributed/__init__.py").write_text("raise ModuleNotFoundError('distributed')\n")
    ended = Batch(
        tmp_path, [str(FIXTURES / "hello.tar")], tmp_path / "root", "--scheduler", "tcp://127.0.0.1:1",
        PYTHONPATH=f"{tmp_path / 'without'}:{Path(__file__).parent.parent}",
    ).end()  # fmt: skip
    assert ended.status == 2
    assert ended.stderr == (
        "docker2nspawn: --scheduler needs Dask, which is not installed; pip install 'docker2nspawn[cluster]'\n"
    )


def test_the_scheduler_is_killed(tmp_path: Path, three: Cluster, served: Served) -> None:
    quick = [f"m{number}" for number in range(3)]
    slow = [f"slow{number}" for number in range(3)]
    for name in slow:
        served.faults[image(served, name)] = ["stall"]
    lines = [str(archive(tmp_path, name)) for name in quick]
    lines += [f"docker://{served.address}/test/image:{name} {name}" for name in slow]
    lines += [str(archive(tmp_path, name)) for name in ("left0", "left1")]
    root = tmp_path / "root"
    batch = Batch(tmp_path, lines, root, "--scheduler", three.address)
    until(lambda: all(f"done {name} " in batch.stderr() for name in quick))
    until(lambda: len(staged(root)) == 3)
    three.kill("scheduler")
    ended = batch.end(40)
    assert ended.status == 1
    states = dict.fromkeys(quick, "done") | dict.fromkeys((*slow, "left0", "left1"), "failed")
    assert ended.states() == states
    lost = f"the Dask scheduler at {three.address} went away"
    for name in slow:
        assert ended.outcome(name)["reason"] == f"{lost}, and nobody told what became of it"
        assert ended.outcome(name)["remedy"] == "run the batch again with --resume"
    assert ended.outcome("left1")["reason"] == f"not begun: {lost}"
    assert "Traceback" not in ended.stderr and "distributed" not in ended.stderr
    for name in ("one", "two", "three"):
        three.kill(name)
    local = Batch(tmp_path, lines, root, "--resume")
    served.release.set()
    assert local.end().states() == dict.fromkeys(quick, "complete") | dict.fromkeys(
        (*slow, "left0", "left1"), "done"
    )
    assert machines(root) == whole(*quick, *slow, "left0", "left1")


def test_all_workers_go_away(tmp_path: Path, served: Served) -> None:
    served.faults[image(served, "slow")] = ["stall"]
    lines = [f"docker://{served.address}/test/image:slow slow", str(FIXTURES / "hello.tar")]
    with cluster(tmp_path / "cluster", "one") as running:
        batch = Batch(tmp_path, lines, tmp_path / "root", "--scheduler", running.address)
        assert served.stalled.wait(60)
        running.kill("one")
        ended = batch.end(90)
    lost = f"all workers of the Dask cluster at {running.address} went away"
    assert (ended.status, set(ended.states().values())) == (1, {"failed"}), ended.stderr
    assert ended.outcome("slow")["reason"] == f"{lost}, and nobody told what became of it"
    assert "hello" in str(ended.states()) and lost in ended.report["outcomes"][1]["reason"]


def test_workers_that_come_later_help(tmp_path: Path, served: Served) -> None:
    served.faults[image(served, "slow")] = ["stall"]
    lines = [f"docker://{served.address}/test/image:slow slow", str(archive(tmp_path, "m"))]
    with cluster(tmp_path / "cluster", "one") as running:
        batch = Batch(tmp_path, lines, tmp_path / "root", "--scheduler", running.address)
        assert served.stalled.wait(60)
        running.add("two")
        until(lambda: "done m " in batch.stderr())
        served.release.set()
        ended = batch.end()
    assert (ended.status, ended.report["jobs"]) == (0, 2), ended.stderr
    assert (ended.outcome("slow")["worker"], ended.outcome("m")["worker"]) == ("one", "two")


def test_jobs_is_a_bound(tmp_path: Path, three: Cluster, served: Served) -> None:
    names = [f"m{number}" for number in range(3)]
    for name in names:
        served.faults[image(served, name)] = ["stall"]
    lines = [f"docker://{served.address}/test/image:{name} {name}" for name in names]
    root = tmp_path / "root"
    batch = Batch(tmp_path, lines, root, "--scheduler", three.address, "--jobs", "2")
    until(lambda: len(staged(root)) == 2)
    deadline = time.monotonic() + 3
    while time.monotonic() < deadline:
        assert len(staged(root)) == 2
        time.sleep(0.1)
    served.release.set()
    ended = batch.end()
    assert (ended.status, ended.report["jobs"]) == (0, 2), ended.stderr


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_a_signal(tmp_path: Path, three: Cluster, served: Served, number: signal.Signals) -> None:
    """Sent twice: what is under way cannot be called back, and is waited for."""
    names = [f"m{number}" for number in range(6)]
    for name in names[:3]:
        served.faults[image(served, name)] = ["stall"]
    lines = [f"docker://{served.address}/test/image:{name} {name}" for name in names[:3]]
    lines += [str(archive(tmp_path, name)) for name in names[3:]]
    root = tmp_path / "root"
    batch = Batch(tmp_path, lines, root, "--scheduler", three.address)
    until(lambda: len(staged(root)) == 3)
    batch.process.send_signal(number)
    until(lambda: "is finished first" in batch.stderr())
    batch.process.send_signal(number)
    time.sleep(3)
    assert batch.process.poll() is None
    served.release.set()
    ended = batch.end()
    assert ended.status == 130
    assert ended.states() == dict.fromkeys(names[:3], "done") | dict.fromkeys(names[3:], "left")
    assert ended.stderr.count("is finished first") == 1
    assert machines(root) == whole(*names[:3])


def test_a_signal_while_the_cluster_is_busy_with_other_things(tmp_path: Path, served: Served) -> None:
    """What waits in Dask's queue is called back; what another batch does is not touched."""
    served.faults[image(served, "slow")] = ["stall"]
    root = tmp_path / "root"
    with cluster(tmp_path / "cluster", "one") as running:
        lines = [f"docker://{served.address}/test/image:slow slow"]
        busy = Batch(tmp_path, lines, root, "--scheduler", running.address)
        assert served.stalled.wait(60)
        batch = Batch(tmp_path, [str(archive(tmp_path, "m"))], root, "--scheduler", running.address)
        time.sleep(4)
        assert batch.process.poll() is None
        batch.process.send_signal(signal.SIGINT)
        ended = batch.end(20)
        assert (ended.status, ended.states()) == (130, {"m": "left"}), ended.stderr
        served.release.set()
        assert busy.end().states() == {"slow": "done"}
    assert machines(root) == whole("slow")


@pytest.mark.lab
def test_each_worker_s_own_root(tmp_path: Path) -> None:
    """Workers of different hosts share no disk: mount namespaces in which ROOT is another directory."""
    assert os.geteuid() == 0 and shutil.which("unshare")
    root = tmp_path / "root"
    root.mkdir()
    lines = [str(archive(tmp_path, f"m{number}")) for number in range(6)]
    with cluster(tmp_path / "cluster") as running:
        for name in ("one", "two"):
            (tmp_path / name).mkdir()
            wrapper = tmp_path / f"python-{name}"
            wrapper.write_text(
                f'#!/bin/sh\nexec unshare --mount sh -c \'mount --bind "{tmp_path / name}" "{root}"\n'
                f'exec {sys.executable} "$@"\' sh "$@"\n'
            )
            wrapper.chmod(0o755)
            running.add(name, python=str(wrapper))
        ended = Batch(tmp_path, lines, root, "--scheduler", running.address).end()
    assert (ended.status, set(ended.states().values())) == (0, {"done"}), ended.stderr
    for outcome in ended.report["outcomes"]:
        assert (tmp_path / outcome["worker"] / "var/lib/machines" / outcome["name"]).is_dir()
    assert {outcome["worker"] for outcome in ended.report["outcomes"]} == {"one", "two"}
    assert not any(root.iterdir())
