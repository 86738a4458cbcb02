"""A range of a split's rows, read from the shards that it touches."""

from __future__ import annotations

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq

from penstock.base.errors import Damaged
from penstock.blobs.port import Blobs
from penstock.data import Manifest
from penstock.data.columns import canonical


def read_rows(
    blobs: Blobs, manifest: Manifest, split: str, columns: list[str], start: int, stop: int
) -> pa.Table:
    """Rows start..stop of a split, in its order, some columns of it.

    Every shard is verified against its digest. Raises NotFound, Damaged (the shard is named).
    """
    ends = manifest.ends_of(split)
    first, last = np.searchsorted(ends, [start, stop - 1], side="right").tolist()
    kept = [column for column in manifest.columns if column.name in columns]
    tables = []
    for shard in manifest.shards_of(split)[first : last + 1]:
        at = int(ends[shard.number]) - shard.rows  # the split's row where the shard begins
        try:
            data = pa.BufferReader(blobs.get(shard.digest))
            table = pq.read_table(data, columns=[column.name for column in kept])
        except (Damaged, pa.ArrowException) as error:
            raise Damaged(
                f'shard {shard.number} of split "{split}" is damaged: {error}',
                "Restore the blob store from a good copy, or prepare the dataset with fresh=True.",
                split=split,
                shard=shard.number,
                digest=shard.digest,
            ) from None
        begin = max(0, start - at)
        tables.append(canonical(table, kept).slice(begin, min(stop - at, shard.rows) - begin))
    return pa.concat_tables(tables)
