"""What is worth sharing among the images of a batch, and in which order it is made."""

from __future__ import annotations

from collections import Counter
from collections.abc import Collection
from dataclasses import dataclass
from itertools import pairwise

from converter.batch.work import Look
from converter.image.chain import chain_ids
from converter.sharing import Shared


@dataclass(frozen=True)
class Common:
    """Something that several jobs need, made from the image of job `number`, after what is named in `after`.

    `name` tells it from others, `what` tells people.
    """

    name: str
    what: str
    number: int
    shared: Shared
    after: frozenset[str]


@dataclass(frozen=True)
class Choice:
    """All that is shared; how it is made; and what each job waits for, by its number."""

    shared: Shared
    made: tuple[Common, ...]
    needs: dict[int, frozenset[str]]


def choose(looks: Collection[Look]) -> Choice:
    """Find the trees and layers that more than one image has.

    A tree is worth keeping where images part: its layers are those that they have in common, and no more of them have
    more in common. A layer is worth keeping by itself when it lies in several images, or trees, upon different ones.
    """
    images = {look.number: _Parts(look, chain_ids(look.diff_ids)) for look in looks}
    users = Counter(chain for image in images.values() for chain in image.chains)
    most_above: Counter[str] = Counter()  # of any one longer chain
    for image in images.values():
        for lower, higher in pairwise(image.chains):
            most_above[lower] = max(most_above[lower], users[higher])
    kept = {chain for chain, count in users.items() if count > 1 and most_above[chain] < count}

    own = {chain: layers for image in images.values() for chain, layers in image.trees(kept)}
    above = {number: image.above(kept) for number, image in images.items()}
    times = Counter(diff_id for layers in (*own.values(), *above.values()) for diff_id in set(layers))
    single = frozenset(diff_id for diff_id, count in times.items() if count > 1)

    made: dict[str, Common] = {}
    needs: dict[int, frozenset[str]] = {}
    for number, image in images.items():
        for diff_id in single.intersection(image.look.diff_ids):
            what = f"a layer of {times[diff_id]} images"
            made.setdefault(
                diff_id, Common(diff_id, what, number, Shared(layers=frozenset({diff_id})), _NOTHING)
            )
        below = _NOTHING
        for chain, layers in image.trees(kept):
            what = f"{len(layers)} layer{'s' if len(layers) > 1 else ''} of {users[chain]} images"
            after = below | single.intersection(layers)
            shared = Shared(below | {chain}, single.intersection(layers))
            made.setdefault(chain, Common(chain, what, number, shared, after))
            below |= {chain}
        needs[number] = below | single.intersection(above[number])
    return Choice(Shared(frozenset(kept), single), tuple(made.values()), needs)


_NOTHING: frozenset[str] = frozenset()


@dataclass(frozen=True)
class _Parts:
    """An image's layers, and the chain ids that its lowest 1, 2, … come to."""

    look: Look
    chains: list[str]

    def trees(self, kept: Collection[str]) -> list[tuple[str, tuple[str, ...]]]:
        """The trees that are kept, the lowest first, each with the layers that it has upon the one before."""
        found = []
        start = 0
        for end, chain in enumerate(self.chains, 1):
            if chain in kept:
                found.append((chain, self.look.diff_ids[start:end]))
                start = end
        return found

    def above(self, kept: Collection[str]) -> tuple[str, ...]:
        """The layers above all these trees."""
        return self.look.diff_ids[sum(len(layers) for _, layers in self.trees(kept)) :]
