"""What a unit's output is remembered by: a digest for every step's output, and one for its rows."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from penstock.base.hashing import digest_json
from penstock.data.formats import Input

CODE = 3  # raised when equal inputs and code would give other rows


def chain_of(identity: str, steps: Sequence[str], last: Sequence[Any]) -> dict[str, Any]:
    """All that the outputs of units depend on beside their inputs. JSON-able.

    identity  of the source: how its inputs are read
    steps     digests
    last      what turns the rows of the last step into those of the version: key, splits, types
    """
    return {"identity": identity, "steps": list(steps), "last": list(last)}


def unit_keys(chain: Mapping[str, Any], inputs: Sequence[tuple[str, str]]) -> list[str]:
    """Of each step's output in order, and of the unit's. inputs: (name, digest) of each."""
    named = [list(each) for each in inputs]
    found = [digest_json(["unit", CODE, chain["identity"], named])]
    for step in chain["steps"]:
        found.append(digest_json([found[-1], step]))
    return [*found[1:], digest_json([found[-1], *chain["last"]])]


def stamp_key(identity: str, inputs: Sequence[Input]) -> str:
    """What the digests of a unit's inputs are remembered by: place, size, time of change."""
    stamps = [[each.uri, each.size, each.stamp, each.piece] for each in inputs]
    return digest_json(["digests", identity, stamps])


def bare(digest: str) -> str:
    """A digest as text that is none, so that no row asks the store to keep such a blob."""
    return digest.rpartition(":")[2]
