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
    more in common. A layer outside of such trees is, when several images have it on different ones.
    """
    chains = {look.number: chain_ids(look.diff_ids) for look in looks}
    by_number = {look.number: look for look in looks}
    users = Counter(chain for of_one in chains.values() for chain in of_one)
    most_above: Counter[str] = Counter()  # of any one longer chain
    for of_one in chains.values():
        for lower, higher in pairwise(of_one):
            most_above[lower] = max(most_above[lower], users[higher])
    kept = {chain for chain, count in users.items() if count > 1 and most_above[chain] < count}

    rest = {number: _above(by_number[number], of_one, kept) for number, of_one in chains.items()}
    times = Counter(diff_id for own in rest.values() for diff_id in set(own))
    layers = frozenset(diff_id for diff_id, count in times.items() if count > 1)
    shared = Shared(frozenset(kept), layers)

    made: dict[str, Common] = {}
    needs: dict[int, frozenset[str]] = {}
    for number, of_one in chains.items():
        below: frozenset[str] = frozenset()
        for count, chain in enumerate(of_one, 1):
            if chain in kept:
                what = f"{count} layer{'s' if count > 1 else ''} of {users[chain]} images"
                made.setdefault(chain, Common(chain, what, number, Shared(frozenset({chain}) | below), below))
                below |= {chain}
        own = frozenset(rest[number]) & layers
        for diff_id in own:
            what = f"a layer of {times[diff_id]} images"
            made.setdefault(
                diff_id, Common(diff_id, what, number, Shared(below, frozenset({diff_id})), below)
            )
        needs[number] = below | own
    return Choice(shared, tuple(made.values()), needs)


def _above(look: Look, chains: list[str], kept: set[str]) -> tuple[str, ...]:
    """The layers above the largest tree that is kept."""
    count = max((count for count, chain in enumerate(chains, 1) if chain in kept), default=0)
    return look.diff_ids[count:]
