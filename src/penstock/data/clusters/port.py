"""What the caller asks of a cluster."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any, Protocol

import pyarrow as pa

from penstock.data.keys import KeyFunction

if TYPE_CHECKING:
    from penstock.jobs.stores import Stores


class ClusterRows(Protocol):
    """Rows on the machines of a cluster. What is asked of it blocks until the cluster is done.

    Raises the family's errors: those that tasks sent home (`sending.py`), and Unavailable where
    the cluster itself failed.
    """

    @property
    def label(self) -> str:
        """What people call it, such as "a DataFrame of Spark's"."""
        ...

    @property
    def unique(self) -> str:
        """How a user of the cluster drops rows whose key comes twice."""
        ...

    def schema(self) -> pa.Schema:
        """The columns as Arrow has them. Raises BadInput for what no version can hold."""
        ...

    def check(self, stores: Stores) -> None:
        """Raises BadInput where its machines cannot reach the blob store."""
        ...

    def keyed(self, key: KeyFunction | None) -> ClusterRows:
        """With one more column, `KEY`: what the function says, or a hash of the row's content."""
        ...

    def units(self, task: str, key: str) -> list[dict[str, Any]]:
        """Have all rows written: what `write_units` told of them.

        task  digest of the blob that says what to do (`units.Task`)
        """
        ...

    def shards(
        self, task: str, payloads: Sequence[dict[str, Any]], shared: dict[str, Any]
    ) -> list[dict[str, Any]]:
        """`shelving.shelved` of each payload, on the cluster, in their order."""
        ...
