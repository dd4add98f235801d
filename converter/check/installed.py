"""What is installed for one machine: the files themselves, and from the record only what no file says."""

from __future__ import annotations

import json
import shlex
import stat
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from converter import commands, inside
from converter.check.parse import (
    PublishedPort,
    Setting,
    is_no,
    is_yes,
    parse_ports,
    parse_settings,
    shell_variables,
    split_paths,
    split_words,
)
from converter.check.versions import SETTINGS_SINCE
from converter.errors import ConversionError
from converter.systemd import installed_version

VOLUMES = "/var/lib/docker2nspawn/volumes/"
STATE = "var/lib/docker2nspawn/machines"
_TEXT_MAX = 64 << 20  # bytes; settings files may be large, but not without end


@dataclass(frozen=True)
class Mount:
    """One mount of the settings: what must be there (`sources`, on the host, or with "+" in the tree), and where to."""

    key: str
    sources: tuple[str, ...]
    destination: str
    options: str


@dataclass(frozen=True)
class Installed:
    """A machine as its host has it. Paths are below `root`, without a leading slash.

    `live`: `root` is this running host's own. `tree` is the machine's root directory, None without one.
    `settings_path` is the settings file that nspawn reads, None without any; `own` whether it is the machine's own.
    """

    name: str
    root: Path
    live: bool
    systemd: int | None
    tree: Path | None
    settings_path: str | None
    own: bool
    settings: tuple[Setting, ...]
    drop_in: tuple[Setting, ...] | None
    network_script: str | None
    record: Mapping[str, Any]

    @property
    def own_settings(self) -> str:
        return f"var/lib/machines/{self.name}.nspawn"

    @property
    def trusted_settings(self) -> str:
        return f"etc/systemd/nspawn/{self.name}.nspawn"

    @property
    def tree_path(self) -> str:
        return f"var/lib/machines/{self.name}"

    @property
    def drop_in_path(self) -> str:
        return f"etc/systemd/system/{self.unit}.d/docker2nspawn.conf"

    @property
    def unit(self) -> str:
        return f"systemd-nspawn@{self.name}.service"

    @property
    def trusted(self) -> bool:
        """Does nspawn take everything from the settings file?"""
        return self.settings_path is not None and self.settings_path != self.own_settings

    @property
    def again(self) -> str:
        """The command that makes the machine anew."""
        reference = self.record.get("reference")
        source = shlex.quote(reference) if isinstance(reference, str) else "SOURCE"
        below = "" if self.live else f" --root {shlex.quote(str(self.root))}"
        return f"make it again: docker2nspawn convert {source} --name {self.name} --force{below}"

    @property
    def boot(self) -> bool:
        # The unit's own switch is --boot.
        return not is_no(self.value("Boot"))

    @property
    def running(self) -> bool:
        return self.live and inside.status(self.root, f"run/systemd/machines/{self.name}") is not None

    def values(self, key: str) -> list[str]:
        """All values of a key of the settings file; an empty one takes back those before it."""
        found: list[str] = []
        for setting in self.settings:
            if setting.key == key and (setting.section, key) in SETTINGS_SINCE:
                found = [*found, setting.value] if setting.value else []
        return found

    def value(self, key: str) -> str | None:
        """A key's last value."""
        return self.values(key)[-1] if self.values(key) else None

    def words(self, key: str) -> list[str]:
        """The words of a list, of all its lines together."""
        return [word for value in self.values(key) for word in split_words(value)]

    def unit_values(self, *keys: str) -> list[str]:
        """The values of these keys in the unit's drop-in."""
        return [setting.value for setting in self.drop_in or () if setting.key in keys and setting.value]

    @property
    def namespace(self) -> str | None:
        """The network namespace that the unit's drop-in names."""
        return next(reversed(self.unit_values("NetworkNamespacePath")), None)

    @property
    def host_network(self) -> bool:
        """Does the machine share the host's network?"""
        links = ("Zone", "Bridge", "Interface", "MACVLAN", "IPVLAN", "VirtualEthernetExtra", "NamespacePath")
        if self.namespace is not None or is_yes(self.value("Private")) or any(map(self.value, links)):
            return False
        return self.trusted and is_no(self.value("VirtualEthernet"))

    @property
    def ports(self) -> tuple[PublishedPort, ...]:
        """The ports of the host that lead to the machine, of its network script."""
        return ports_of(self.network_script or "")

    @property
    def address(self) -> str | None:
        """The machine's address in a network of its own."""
        return address_of(self.network_script or "") or _text(self.record.get("address"))

    @property
    def mounts(self) -> tuple[Mount, ...]:
        """Bind*, Overlay* and TemporaryFileSystem of the settings file."""
        found = []
        for key in ("Bind", "BindReadOnly", "Overlay", "OverlayReadOnly", "TemporaryFileSystem"):
            for value in self.values(key):
                parts = split_paths(value)
                if key.startswith("Overlay"):
                    found.append(
                        Mount(key, tuple(parts[:-1]) if len(parts) > 2 else tuple(parts), parts[-1], "")
                    )
                elif key == "TemporaryFileSystem":
                    found.append(Mount(key, (), parts[0], ":".join(parts[1:])))
                else:
                    destination = parts[1] if len(parts) > 1 and parts[1] else parts[0].lstrip("+-")
                    found.append(Mount(key, (parts[0],), destination, ":".join(parts[2:])))
        return tuple(found)

    @property
    def config(self) -> Mapping[str, Any]:
        """The image's config, from the record."""
        config = self.record.get("config")
        return config if isinstance(config, dict) else {}

    def option(self, name: str) -> str | None:
        """An option that the machine was made with, from the record."""
        options = self.record.get("options")
        return _text(options.get(name)) if isinstance(options, dict) else None


def ports_of(script: str) -> tuple[PublishedPort, ...]:
    """The published ports of a machine's network script."""
    return parse_ports(shell_variables(script).get("PORTS", "").split())


def address_of(script: str) -> str | None:
    """The machine's address of its network script, without the length of the prefix."""
    variables = shell_variables(script)
    return (variables.get("ADDRESS") or variables.get("MACHINE_ADDRESS") or "").partition("/")[0] or None


def _text(value: object) -> str | None:
    return None if value is None else str(value)


@contextmanager
def installed(name: str, root: Path) -> Iterator[Installed]:
    """What the host below `root` has of machine `name`. Raises ConversionError when it has nothing of it."""
    if not root.is_dir():
        raise ConversionError(f"there is no directory {root}; --root is a host's root directory")
    own = f"var/lib/machines/{name}.nspawn"
    tree_path = f"var/lib/machines/{name}"
    drop_in = _read(root, f"etc/systemd/system/systemd-nspawn@{name}.service.d/docker2nspawn.conf")
    record = _read(root, f"{STATE}/{name}.json")
    if drop_in is None and record is None and not _exists(root, own) and not _exists(root, tree_path):
        raise ConversionError(
            f"there is no machine {name} below {root}; `docker2nspawn convert` makes one, and {root / STATE} "
            "lists those it has made"
        )
    with _opened_tree(root, tree_path) as tree:
        settings_path, is_own = _settings_file(root, name, own)
        settings = _read(root, settings_path) if settings_path else None
        yield Installed(
            name=name,
            root=root,
            live=commands.is_this_host(root),
            systemd=installed_version(root),
            tree=tree,
            settings_path=settings_path,
            own=is_own,
            settings=parse_settings(settings or ""),
            drop_in=parse_settings(drop_in) if drop_in is not None else None,
            network_script=_read(root, f"{STATE}/{name}.network"),
            record=_parsed_record(record),
        )


@contextmanager
def _opened_tree(root: Path, path: str) -> Iterator[Path | None]:
    """The tree by a descriptor of it: also where it is a link, it is the one that nspawn would take."""
    found = inside.status(root, path)
    if found is None or not stat.S_ISDIR(found.st_mode):
        yield None
        return
    with inside.located(root, path) as fd:
        yield Path(f"/proc/self/fd/{fd}")


def _settings_file(root: Path, name: str, own: str) -> tuple[str | None, bool]:
    """The file that nspawn reads, the first that is there, and whether it is the machine's own."""
    ours = inside.status(root, own)
    for path in (f"etc/systemd/nspawn/{name}.nspawn", f"run/systemd/nspawn/{name}.nspawn", own):
        if (found := inside.status(root, path)) is not None:
            same = ours is not None and (found.st_dev, found.st_ino) == (ours.st_dev, ours.st_ino)
            return path, same
    return None, False


def _read(root: Path, path: str) -> str | None:
    content = inside.read(root, path, _TEXT_MAX)
    return None if content is None else content.decode("utf-8", "surrogateescape")


def _exists(root: Path, path: str) -> bool:
    return inside.status(root, path) is not None


def _parsed_record(text: str | None) -> Mapping[str, Any]:
    try:
        record = json.loads(text or "{}")
    except ValueError:
        return {}
    return record if isinstance(record, dict) else {}
