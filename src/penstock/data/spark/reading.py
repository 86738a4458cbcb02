"""A version is read as a DataFrame: the script's side.

The script resolves the reference, once; Spark gets the digest of the manifest, so what a DataFrame
reads never changes, whatever aliases do meanwhile.
"""

from __future__ import annotations

import datetime
import json
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

from penstock.base.errors import BadInput
from penstock.data.clusters.refusing import refuse_near_blobs
from penstock.data.dataset import open_dataset
from penstock.data.source import chosen
from penstock.data.spark.filters import asked_of, shards_for
from penstock.data.spark.parquet import read_files, spark_files
from penstock.data.spark.session import check_session, is_local, need_pyspark, spoken
from penstock.data.spark.types import spark_fields

if TYPE_CHECKING:
    from penstock.jobs.stores import Stores


def read(
    stores: Stores,
    spark: Any,
    reference: str,
    columns: Sequence[str] | None = None,
    where: Sequence[tuple[str, str, Any]] | None = None,
    verify: bool = False,
) -> Any:
    """A DataFrame of one split. Spark reads shards that are Parquet by itself where it can
    (`parquet.py`); of others each is a partition, which a Python process of Spark's reads.

    columns  names; default: all
    where    conditions that all rows fulfil (see `filters.py`); shards that cannot hold such a
             row are not read
    verify   compare every shard with its hash, which takes a Python process to read all of it

    Raises BadInput, NotFound, MissingExtra; while it runs, Spark raises its own errors.
    """
    need_pyspark()
    check_session(spark)
    if isinstance(columns, str):
        raise BadInput("columns is one text", f'Give a list: columns=["{columns}"].')
    data = open_dataset(stores, reference)
    refuse_near_blobs(stores, is_local(spark))
    wanted = [each.name for each in chosen(data.manifest, columns)]
    asked = asked_of(where, data.manifest.schema)
    compared = [each for each, _, _ in asked if each not in wanted]
    given = chosen(data.manifest, [*wanted, *compared])
    spark_fields(given)
    numbers = shards_for(data.manifest, data.split, asked)
    shards = list(data.manifest.shards_of(data.split))
    here = [shards[number] for number in numbers]
    files = None if verify else spark_files(stores.blobs, here, given, data.manifest.columns)
    if files is not None:
        frame = spoken(lambda: read_files(spark, files, given))
    else:
        options = {
            "blobs": stores.blobs.url,
            "manifest": data.manifest.digest,
            "split": data.split,
            "verify": "true" if verify else "false",
            "shards": json.dumps(runs(numbers)),
            "columns": json.dumps([*wanted, *compared]),
        }
        frame = spoken(lambda: _loaded(spark, options))
    for each in asked:
        frame = frame.where(_condition(*each))
    return frame.select(*map(_quoted, wanted)) if compared else frame


def _loaded(spark: Any, options: dict[str, str]) -> Any:
    from penstock.data.spark.source import NAME, PenstockSource

    spark.dataSource.register(PenstockSource)
    return spark.read.format(NAME).options(**options).load()


def runs(numbers: Sequence[int]) -> list[list[int]]:
    """Ascending numbers as runs.

    >>> runs([0, 1, 2, 7, 9, 10])
    [[0, 3], [7, 8], [9, 11]]
    """
    found: list[list[int]] = []
    for number in numbers:
        if found and found[-1][1] == number:
            found[-1][1] += 1
        else:
            found.append([number, number + 1])
    return found


def _condition(name: str, operator: str, value: Any) -> Any:
    """As Spark has it."""
    from pyspark.sql import functions

    ours = functions.col(_quoted(name))
    if operator == "in":
        return ours.isin([_literal(each) for each in value])
    other = _literal(value)
    return {
        "=": ours == other, "<": ours < other, "<=": ours <= other,
        ">": ours > other, ">=": ours >= other,
    }[operator]  # fmt: skip


def _literal(value: Any) -> Any:
    """A time without a zone is one to Spark, too, whatever the zone of the session."""
    from pyspark.sql import functions

    if isinstance(value, datetime.datetime) and value.tzinfo is None:
        return functions.expr(f"TIMESTAMP_NTZ '{value.isoformat(sep=' ')}'")
    return functions.lit(value)


def _quoted(name: str) -> str:
    return "`" + name.replace("`", "``") + "`"
