"""Whether what `prepare` was given lies on a cluster, and which options then mean nothing."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

from penstock.base.errors import BadInput
from penstock.data.clusters.port import ClusterRows

if TYPE_CHECKING:
    from penstock.jobs.stores import Stores


def cluster_rows(stores: Stores, given: Any) -> ClusterRows | None:
    """None for what is no Dataset of Ray's and no DataFrame of Spark's; imports neither then."""
    where = type(given).__module__
    if where.startswith("ray.data.") and hasattr(given, "map_batches"):
        from penstock.data.rays import RayRows

        return RayRows(given, stores)
    if where.startswith("pyspark.sql.") and hasattr(given, "mapInArrow"):
        from penstock.data.spark.session import need_pyspark
        from penstock.data.spark.writing import DataFrameRows

        need_pyspark()
        return DataFrameRows(given, stores)
    return None


def refuse_options(rows: ClusterRows, options: Mapping[str, Any], bad: str) -> None:
    """Raise BadInput for what the cluster does better before: steps, joins, orders."""
    told = [name for name, value in options.items() if value not in (None, False)]
    told += ["bad"] if bad != "fail" else []
    if told:
        raise BadInput(
            f"{rows.label} is written as it is; {', '.join(told)} cannot be given with it",
            "Do it on the cluster before, or prepare a version from the version.",
            options=told,
        )
