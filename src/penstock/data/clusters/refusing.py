"""What is refused before any task runs: columns that no version can hold, blobs out of reach."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

from penstock.base.errors import BadInput
from penstock.data.columns import Unsupported, column_of_type

if TYPE_CHECKING:
    from penstock.jobs.stores import Stores


def refuse_types(fields: Mapping[str, Any], told: Mapping[str, str], fix: str) -> None:
    """Raise BadInput that lists the columns that no version can hold.

    fields  name -> Arrow type, None where there is none
    told    name -> what the cluster calls the type
    """
    wrong = []
    for name, kind in fields.items():
        try:
            if kind is None:
                raise Unsupported(told[name])
            column_of_type(name, kind)
        except Unsupported:
            wrong.append(f'"{name}" is {told[name]}')
    if wrong:
        raise BadInput(f"columns that no dataset can hold: {', '.join(wrong)}", fix, columns=wrong)


def refuse_near_blobs(stores: Stores, local: bool) -> None:
    """Raise BadInput where tasks on other machines, or in other processes, reach no blob."""
    if stores.blobs.url.startswith("memory:"):
        raise BadInput(
            "the blob store is in this process's memory, where no task reaches it",
            "Set `blobs` to a file:// URL or an object store.",
        )
    if not local and stores.settings.blobs is None:
        raise BadInput(
            "the blobs lie in the home, on this machine's disk, which the cluster does not reach",
            'Set `blobs`, to "s3://BUCKET/PREFIX", say; or to a file:// URL of a disk that all '
            "machines mount.",
        )
