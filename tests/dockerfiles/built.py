"""What came of a build, and in what two of them differ."""

from __future__ import annotations

import json
import tempfile
from collections.abc import Iterator, Mapping
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any

from converter.image.config import parse_container_config
from converter.image.model import Healthcheck, ImageConfig
from tests import lab
from tests.dockerfiles.place import Place
from tests.trees import Facts, facts

Tree = Mapping[bytes, Facts]

CONFIGS = Path(__file__).with_name("configs.json")
NONE = "(none)"
_NOW = 1_700_000_000 * 10**9  # ns; contexts and bases are older, what a build makes is newer

_FIELDS = (
    "user",
    "env",
    "entrypoint",
    "cmd",
    "working_dir",
    "stop_signal",
    "volumes",
    "exposed_ports",
    "labels",
    "healthcheck",
    "shell",
    "on_build",
    "author",
)


@dataclass(frozen=True)
class Built:
    """An image's config and tree, or why there is none."""

    config: ImageConfig | None = None
    tree: Tree | None = None
    error: str | None = None


@dataclass(frozen=True)
class Difference:
    """One thing that is not the same. `what` is `config FIELD` or `tree FIELD PATH`, a directory's with a slash."""

    what: str
    docker: str
    ours: str

    def __str__(self) -> str:
        return f"{self.what}: Docker {self.docker}, here {self.ours}"


def from_docker(place: Place, name: str) -> Built:
    """The image `name` as its containers see it: its layers where overlay2 keeps them, mounted one upon another."""
    inspected = json.loads(place.docker("inspect", name).stdout)[0]
    config = replace(parse_container_config(inspected["Config"]), author=inspected.get("Author") or "")
    if not inspected["RootFS"].get("Layers"):
        return Built(config)
    storage = place.host.root / "var/lib/docker/overlay2"
    layer = storage / Path(inspected["GraphDriver"]["Data"]["UpperDir"]).parent.name
    if not (layer / "lower").exists():
        return Built(config, facts(layer / "diff"))
    with tempfile.TemporaryDirectory(dir=place.host.root / "srv") as tree:
        layers = f"l/{(layer / 'link').read_text()}:{(layer / 'lower').read_text()}"
        script = 'cd "$0" && exec mount -t overlay -o "ro,lowerdir=$1" overlay "$2"'
        lab.run("sh", "-c", script, storage, layers, tree)
        try:
            return Built(config, facts(Path(tree), whole=False))
        finally:
            lab.run("umount", tree)


def shown_config(config: ImageConfig) -> dict[str, Any]:
    """A config's fields that have a value, as JSON has them; sets are sorted."""
    values = {name: getattr(config, name) for name in _FIELDS}
    values["volumes"] = sorted(values["volumes"])
    values["exposed_ports"] = sorted(values["exposed_ports"])
    values["labels"] = dict(sorted(values["labels"].items()))
    if config.healthcheck is not None:
        check = asdict(config.healthcheck).items()
        values["healthcheck"] = {name: value for name, value in check if value}
    shown: dict[str, Any] = json.loads(json.dumps({name: value for name, value in values.items() if value}))
    return shown


def read_config(shown: Mapping[str, Any]) -> ImageConfig:
    """A config as `shown_config` has shown it."""
    values: dict[str, Any] = {
        name: tuple(value) if isinstance(value, list) else value for name, value in shown.items()
    }
    if "healthcheck" in values:
        check = values["healthcheck"]
        values["healthcheck"] = Healthcheck(**{**check, "test": tuple(check["test"])})
    return ImageConfig(**values)


def differences(docker: Built, ours: Built) -> Iterator[Difference]:
    """In what our build differs from Docker's."""
    if (docker.error is None) != (ours.error is None):
        yield Difference("outcome", docker.error or "built", ours.error or "built")
        return
    if docker.config is not None and ours.config is not None:
        yield from config_differences(shown_config(docker.config), shown_config(ours.config))
    if docker.tree is not None and ours.tree is not None:
        yield from _tree_differences(docker.tree, ours.tree)


def config_differences(docker: Mapping[str, Any], ours: Mapping[str, Any]) -> Iterator[Difference]:
    """In what two configs differ, field by field."""
    for name in _FIELDS:
        if docker.get(name) != ours.get(name):
            yield Difference(f"config {name}", repr(docker.get(name)), repr(ours.get(name)))


def _tree_differences(docker: Tree, ours: Tree) -> Iterator[Difference]:
    for path in sorted(docker.keys() | ours.keys()):
        left, right = docker.get(path), ours.get(path)
        where = path.decode("utf-8", "backslashreplace")
        where += "/" if "dir" in {fact.kind for fact in (left, right) if fact is not None} else ""
        if left is None or right is None:
            yield Difference(f"tree name {where}", left.kind if left else NONE, right.kind if right else NONE)
            continue
        shown = _shown(left), _shown(right)
        for name, one in shown[0].items():
            if one != shown[1][name]:
                yield Difference(f"tree {name} {where}", one, shown[1][name])


def _shown(fact: Facts) -> dict[str, str]:
    """Times in seconds, as tar has them; what a build has made is just new."""
    return {
        "kind": fact.kind,
        "mode": f"{fact.mode:04o}",
        "owner": f"{fact.uid}:{fact.gid}",
        "mtime": "new" if fact.mtime >= _NOW else str(fact.mtime // 10**9),
        "content": repr(fact.content),
        "device": f"{fact.device[0]}:{fact.device[1]}",
        "xattrs": repr(fact.xattrs),
        "names": repr(sorted(fact.names)),
    }


def contents(tree: Tree) -> dict[str, str]:
    """Path -> content of a file, "-> TARGET" of a link, or "dir"; without the root itself."""
    found = {}
    for path, fact in tree.items():
        if path != b".":
            text = {"file": fact.content.decode(), "symlink": f"-> {fact.content.decode()}"}
            found[path.decode()] = text.get(fact.kind, fact.kind)
    return found
