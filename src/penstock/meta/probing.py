"""Whether a meta store can be used from here, looked at: for `penstock doctor --cluster`."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

from penstock.meta.open import open_to_look, schema_of

if TYPE_CHECKING:
    from penstock.meta.postgres.vitals import Vitals


@dataclass(frozen=True, slots=True)
class Probed:
    """shown   the URL without a password
    schema  version of the tables; None: there are none yet
    vitals  of the server; None: the store is a file
    """

    shown: str
    schema: str | None
    vitals: Vitals | None


def probe(url: str) -> Probed:
    """Look at a store; nothing is made or changed. Raises what `open_meta` raises."""
    if not url.startswith("postgresql://"):
        return Probed(url, schema_of(url), None)
    from penstock.meta.postgres import vitals

    store = open_to_look(url)
    try:
        return Probed(store.shown, store.found, store.ask(vitals.of))
    finally:
        store.close()
