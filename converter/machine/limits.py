"""What a container may use: HostConfig's resources in the words of systemd.resource-control(5) and setrlimit(2)."""

from __future__ import annotations

import math
import re
from collections.abc import Iterator, Mapping
from typing import Any

from converter.machine.inspected import field_note, flag, mapping, number, sequence, text
from converter.machine.model import UnitSetting
from converter.machine.settings import INEXPRESSIBLE
from converter.note import Note

Decided = Iterator[UnitSetting | Note]
"""Settings of the unit and the notes about them, in any order."""

_RLIMITS = frozenset(
    [
        "as",
        "core",
        "cpu",
        "data",
        "fsize",
        "locks",
        "memlock",
        "msgqueue",
        "nice",
        "nofile",
        "nproc",
        "rss",
        "rtprio",
        "rttime",
        "sigpending",
        "stack",
    ]
)
_CPUS = re.compile(r"\d{1,5}(-\d{1,5})?(,\d{1,5}(-\d{1,5})?)*")
_RATES = {
    "BlkioDeviceReadBps": "IOReadBandwidthMax",
    "BlkioDeviceWriteBps": "IOWriteBandwidthMax",
    "BlkioDeviceReadIOps": "IOReadIOPSMax",
    "BlkioDeviceWriteIOps": "IOWriteIOPSMax",
}
_SHORTEST_SLICE = re.compile(r"[A-Za-z0-9:_.\\]+(-[A-Za-z0-9:_.\\]+)*\.slice")


def unit_word(word: str) -> str | None:
    """`word` as one word of a unit's setting, exact after quotes, escapes and % specifiers; None when it cannot be."""
    if INEXPRESSIBLE.search(word):
        return None
    escaped = word.replace("\\", "\\\\").replace('"', '\\"').replace("%", "%%")
    return escaped if re.fullmatch(r"[A-Za-z0-9_./:,@+=%-]+", escaped) else f'"{escaped}"'


def resources(host: Mapping[str, Any]) -> Decided:
    """Memory, processors, tasks and block devices as settings of the unit. `host` is HostConfig."""
    yield from _memory(host)
    yield from _processors(host)
    yield from _block_devices(host)
    if (tasks := host.get("PidsLimit")) is not None:
        limit = number(tasks, "HostConfig.PidsLimit")
        # The count has nspawn itself in it.
        value = str(limit + 1) if limit > 0 else "infinity"
        yield UnitSetting("Service", "TasksMax", value)
        yield field_note("exact", "PidsLimit", limit, f"TasksMax={value}")
    if parent := text(host.get("CgroupParent"), "HostConfig.CgroupParent"):
        if _SHORTEST_SLICE.fullmatch(parent) and len(parent) < 200:
            yield UnitSetting("Service", "Slice", parent)
            yield field_note("exact", "CgroupParent", parent, "Slice=")
        else:
            yield field_note(
                "dropped",
                "CgroupParent",
                parent,
                "not a systemd slice; make a .slice unit and set Slice= in a drop-in",
            )


def rlimits(host: Mapping[str, Any]) -> tuple[dict[str, str], list[Note]]:
    """Ulimits as Limit*= of the settings file: "soft:hard", numbers as the kernel takes them, or infinity."""
    limits: dict[str, str] = {}
    notes: list[Note] = []
    for entry in sequence(host.get("Ulimits"), "HostConfig.Ulimits"):
        limit = mapping(entry, "HostConfig.Ulimits")
        name = text(limit.get("Name"), "HostConfig.Ulimits.Name").lower()
        soft, hard = (number(limit.get(key), f"HostConfig.Ulimits.{key}") for key in ("Soft", "Hard"))
        unlimited = 2**64
        ordered = (soft if soft >= 0 else unlimited) <= (hard if hard >= 0 else unlimited)
        in_range = name != "nice" or (0 <= soft <= 40 and 0 <= hard <= 40)
        if name in _RLIMITS and ordered and in_range:
            key = f"Limit{name.upper()}"
            # Time settings without a unit are seconds in LimitCPU= and microseconds in LimitRTTIME=, as in Linux.
            limits[key] = ":".join(str(value) if value >= 0 else "infinity" for value in (soft, hard))
            notes.append(field_note("exact", "Ulimits", entry, f"{key}={limits[key]}"))
        else:
            notes.append(field_note("dropped", "Ulimits", entry, "Linux has no such limit"))
    return limits, notes


def restart(policy: object, *, systemd: int) -> Decided:
    """HostConfig.RestartPolicy as Restart= and what belongs to it, for a host with that version of systemd."""
    fields = mapping(policy, "HostConfig.RestartPolicy")
    name = text(fields.get("Name"), "HostConfig.RestartPolicy.Name")
    most = number(fields.get("MaximumRetryCount"), "HostConfig.RestartPolicy.MaximumRetryCount")
    if name in ("", "no"):
        return
    if name not in ("always", "unless-stopped", "on-failure"):
        yield field_note(
            "dropped", "RestartPolicy", policy, "not a policy of Docker's; set Restart= in a drop-in"
        )
        return
    how = "on-failure" if name == "on-failure" else "always"
    yield UnitSetting("Unit", "StartLimitIntervalSec", "0")
    yield UnitSetting("Service", "Restart", how)
    yield UnitSetting("Service", "RestartSec", "100ms")
    said = f"Restart={how}, without a limit; with `machinectl enable` it starts with the host"
    if how == "on-failure" and most > 0:
        # A start limit would also count, and refuse, starts by hand; NRestarts counts as Docker does.
        count = '"$$(systemctl show --property=NRestarts --value "$$0")"'
        yield UnitSetting("Service", "ExecCondition", f"/bin/sh -c 'test {count} -le {most}' %n")
        said = f"Restart=on-failure, at most {most} times"
    if systemd >= 254:
        # 0.1 s, doubled each time up to a minute, is Docker's own; it starts again at 0.1 s after a run of 10 s.
        yield UnitSetting("Service", "RestartSteps", "9")
        yield UnitSetting("Service", "RestartMaxDelaySec", "1min")
        said += "; the pause grows to a minute as in Docker, and is short again after a start by hand only"
    else:
        said += "; the pause is 0.1 s always, where Docker's grows to a minute"
    yield field_note("adapted", "RestartPolicy", policy, said)


def _memory(host: Mapping[str, Any]) -> Decided:
    memory, swap, reserved = (
        number(host.get(key), f"HostConfig.{key}") for key in ("Memory", "MemorySwap", "MemoryReservation")
    )
    if memory > 0:
        yield UnitSetting("Service", "MemoryMax", str(memory))
        yield field_note("exact", "Memory", memory, "MemoryMax=")
    elif memory:
        yield field_note("exact", "Memory", memory, "no limit, as in Docker")
    if swap == 0 and memory > 0:  # Docker's default, which the daemon writes out
        swap = memory * 2
    if swap > 0 and 0 < memory <= swap:
        yield UnitSetting("Service", "MemorySwapMax", str(swap - memory))
        yield field_note("exact", "MemorySwap", swap, f"MemorySwapMax={swap - memory}")
    elif swap == -1:
        yield UnitSetting("Service", "MemorySwapMax", "infinity")
        yield field_note("exact", "MemorySwap", swap, "MemorySwapMax=infinity")
    elif swap:
        yield field_note(
            "dropped", "MemorySwap", swap, "Docker takes it with a smaller Memory only; set MemorySwapMax="
        )
    if reserved > 0:
        yield UnitSetting("Service", "MemoryLow", str(reserved))
        yield field_note("exact", "MemoryReservation", reserved, "MemoryLow=")
    if (swappiness := host.get("MemorySwappiness")) is not None and swappiness != -1:
        yield field_note(
            "dropped", "MemorySwappiness", swappiness, "cgroup v2 has none; set vm.swappiness of the host"
        )
    for field in ("KernelMemory", "KernelMemoryTCP"):
        if host.get(field):
            yield field_note(
                "dropped", field, host[field], "cgroup v2 has none, nor has newer Docker; use MemoryMax="
            )
    if flag(host.get("OomKillDisable"), "HostConfig.OomKillDisable"):
        yield field_note(
            "dropped", "OomKillDisable", True, "cgroup v2 has none; set OOMScoreAdjust=-1000 or no MemoryMax="
        )


def _processors(host: Mapping[str, Any]) -> Decided:
    if (shares := number(host.get("CpuShares"), "HostConfig.CpuShares")) > 0:
        weight = cpu_weight(shares)
        yield UnitSetting("Service", "CPUWeight", str(weight))
        yield field_note(
            "exact", "CpuShares", shares, f"CPUWeight={weight}, the weight that Docker gives for it"
        )
    nano, quota, period = (
        number(host.get(key), f"HostConfig.{key}") for key in ("NanoCpus", "CpuQuota", "CpuPeriod")
    )
    fields: list[tuple[str, int]] = []
    hundredths = 0.0  # of a percent of one processor
    if quota > 0:
        fields, hundredths = [("CpuQuota", quota)], quota * 10000 / (period if period > 0 else 100_000)
    elif nano > 0:
        fields, hundredths = [("NanoCpus", nano)], nano / 100_000
    if period > 0:
        fields.append(("CpuPeriod", period))
        if 1000 <= period <= 1_000_000:
            yield UnitSetting("Service", "CPUQuotaPeriodSec", f"{period}us")
    rounded = round(hundredths)
    if 0 < rounded < 2**31:
        percent = f"{rounded // 100}.{rounded % 100:02}".removesuffix(".00")
        yield UnitSetting("Service", "CPUQuota", f"{percent}%")
        exact = rounded == hundredths
        for field, value in fields:
            yield field_note(
                "exact" if exact else "adapted",
                field,
                value,
                f"CPUQuota={percent}%" + ("" if exact else ", rounded to what systemd takes"),
            )
    elif fields:
        for field, value in fields:
            alone = field == "CpuPeriod" and len(fields) == 1
            yield field_note(
                "exact" if alone else "dropped",
                field,
                value,
                "CPUQuotaPeriodSec=" if alone else "no such share of a processor; set CPUQuota= in a drop-in",
            )
    if quota < 0:
        yield field_note("exact", "CpuQuota", quota, "no limit, as in Docker")
    for field, key in (("CpusetCpus", "AllowedCPUs"), ("CpusetMems", "AllowedMemoryNodes")):
        if chosen := text(host.get(field), f"HostConfig.{field}"):
            if cpu_list(chosen):
                yield UnitSetting("Service", key, chosen)
                yield field_note("exact", field, chosen, f"{key}=")
            else:
                yield field_note("dropped", field, chosen, f"not a list of numbers; set {key}= in a drop-in")
    for field in ("CpuRealtimePeriod", "CpuRealtimeRuntime"):
        if host.get(field):
            yield field_note(
                "dropped", field, host[field], "systemd has no quota for real-time tasks; see LimitRTPRIO="
            )


def cpu_weight(shares: int) -> int:
    """Docker's --cpu-shares on cgroup v2's scale, 1 to 10000 (opencontainers/cgroups, utils.go)."""
    if shares <= 2:
        return 1
    if shares >= 262144:
        return 10000
    log = math.log2(shares)
    return math.ceil(10 ** ((log * log + 125 * log) / 612 - 7 / 34))


def cpu_list(chosen: str) -> bool:
    """Is this a list of processors like "0-2,4", as Docker and systemd both take it?"""
    return bool(_CPUS.fullmatch(chosen))


def _block_devices(host: Mapping[str, Any]) -> Decided:
    if (weight := number(host.get("BlkioWeight"), "HostConfig.BlkioWeight")) > 0:
        value = _io_weight(weight)
        yield UnitSetting("Service", "IOWeight", value)
        yield field_note(
            "exact", "BlkioWeight", weight, f"IOWeight={value}, the weight that Docker gives for it"
        )
    for field, key, amount in (
        ("BlkioWeightDevice", "IODeviceWeight", "Weight"),
        *((field, key, "Rate") for field, key in _RATES.items()),
    ):
        for entry in sequence(host.get(field), f"HostConfig.{field}"):
            device = mapping(entry, f"HostConfig.{field}")
            path = text(device.get("Path"), f"HostConfig.{field}.Path")
            rate = number(device.get(amount), f"HostConfig.{field}.{amount}")
            word = unit_word(path) if path.startswith("/") and ".." not in path.split("/") else None
            if word is None or rate <= 0:
                yield field_note(
                    "dropped", field, entry, f"nothing that {key}= could hold; set it in a drop-in"
                )
                continue
            shown = _io_weight(rate) if amount == "Weight" else str(rate)
            yield UnitSetting("Service", key, f"{word} {shown}")
            yield field_note("exact", field, entry, f"{key}=")


def _io_weight(weight: int) -> str:
    # opencontainers/cgroups, utils.go: 10 to 1000 becomes 1 to 10000.
    return str(min(10000, 1 + max(0, weight - 10) * 9999 // 990))
