"""The list that a Docker daemon makes: its containers and its images."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence

from converter.batch.entry import Entries, Entry, UsageError
from converter.errors import ConversionError


def select(*, containers: bool, images: bool, labels: Sequence[str] = ()) -> Entries:
    """All containers, running or not, and all images of the daemon, those first, by name; labels alone mean containers.

    Only what has all `labels` is taken: KEY=VALUE, or KEY with any value. An image is there once, by the first of its
    tags. Raises UsageError for a label without a key; ConversionError when the daemon cannot tell, or has none such.
    """
    wanted = [_label(text) for text in labels]
    from converter.image import daemon  # here, because Docker's SDK takes long to load

    sources: list[str] = []
    messages = []
    if containers or not images:
        found = [one.names[0] for one in daemon.list_containers() if _has(one.labels, wanted)]
        sources += [f"container:{name}" for name in sorted(found)]
    if images:
        matching = [one.names for one in daemon.list_images() if _has(one.labels, wanted)]
        sources += [f"docker-daemon:{names[0]}" for names in sorted(filter(None, matching))]
        if unnamed := matching.count(()):
            what = "1 image has" if unnamed == 1 else f"{unnamed} images have"
            messages.append(f"{what} neither a tag nor a digest to be named by, and will not be converted")
    if not sources:
        kinds = " and no ".join(["container"] * (containers or not images) + ["image"] * images)
        with_labels = f" with {', '.join(labels)}" if wanted else ""
        raise ConversionError("; ".join((f"the Docker daemon has no {kinds}{with_labels}", *messages)))
    return Entries(tuple(Entry(source, source) for source in sources), tuple(messages))


def _label(text: str) -> tuple[str, str | None]:
    key, equals, value = text.partition("=")
    if not key:
        raise UsageError(None, f"--label {text!r} has no key", "write KEY=VALUE, or KEY")
    return key, value if equals else None


def _has(labels: Mapping[str, str], wanted: Iterable[tuple[str, str | None]]) -> bool:
    return all(key in labels and value in (None, labels[key]) for key, value in wanted)
