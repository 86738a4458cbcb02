"""`ps.spark`: DataFrames of Spark become dataset versions, and versions are read as DataFrames.

    spark = ps.spark.session("local[2]")
    ps.spark.write(df, "events", key="id", splits={"train": 0.9, "test": 0.1})
    df = ps.spark.read(spark, "events@1:train", columns=["id", "at"])

docs/data.md says which types there are, docs/cluster.md what a cluster needs.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import TYPE_CHECKING, Any

from penstock.home import explaining
from penstock.home.guard import only_in_one_process, only_in_scripts
from penstock.home.named_options import named_options
from penstock.home.verbs import current, say

if TYPE_CHECKING:
    from penstock.data import Prepared

__all__ = ["read", "session", "write"]


@named_options
def write(
    df: Any,
    name: str,
    *,
    key: str | Callable[..., Any] | None = None,
    splits: Any = None,
    by: str | None = None,
    types: Mapping[str, Any] | None = None,
    on_progress: Callable[..., None] | None = None,
) -> Prepared:
    """Make a dataset version of a DataFrame, or find the one that has the same rows.

    df        written by Spark's executors, straight to the blob store
    key       column (or function of a row) that names a sample; default: the column "key", else a
              hash of the row's content. The rows of a split come in order of their key
    splits    as `ps.prepare` has them: shares by hash of the key, or of the column `by`, whose
              rows stay together; or a column; or ByTime(…)
    types     what columns mean, e.g. {"image": Image()}
    returns   what was prepared: `.reference`, `.version`, `.reused`, `.why`

    Raises BadInput, UserCodeFailed, MissingExtra, Unavailable; nothing is published then.
    """
    only_in_scripts("spark.write")
    only_in_one_process("spark.write")
    explaining.ends_at("spark.write")
    from penstock.data.spark.writing import write as write_frame

    found = write_frame(
        current().stores, df, name, key=key, splits=splits, by=by, types=types,
        on_progress=on_progress,
    )  # fmt: skip
    for line in (found.why, *found.notes):
        say(line)
    return found


@named_options
def read(
    spark: Any,
    reference: str,
    *,
    columns: Sequence[str] | None = None,
    where: Sequence[tuple[str, str, Any]] | None = None,
    verify: bool = False,
) -> Any:
    """A DataFrame of one split of a version, read by executors from the blob store.

    reference  NAME[@VERSION-OR-ALIAS]:SPLIT; it means what it means now
    columns    names; only these are read; default: all
    where      conditions, of which all hold: [("id", ">=", 1000), ("kind", "in", ["a", "b"])];
               shards that cannot hold such a row are not read. `df.where` filters, too, but
               after reading
    verify     compare each shard with its hash, also where only some columns are read

    Raises BadInput, NotFound, MissingExtra.
    """
    from penstock.data.spark.reading import read as read_split

    return read_split(current().stores, spark, explaining.opened(reference), columns, where, verify)


def session(master: str | None = None, **conf: str) -> Any:
    """A SparkSession, or the one that is there; any other will do as well.

    master  "local[2]", "spark://HOST:7077", …; default: what Spark's configuration says
    conf    Spark's settings, `__` for the dots: spark__executor__memory="2g"

    Raises MissingExtra, BadInput, and Unavailable without Java.
    """
    from penstock.data.spark.session import open_session

    return open_session(master, {name.replace("__", "."): value for name, value in conf.items()})
