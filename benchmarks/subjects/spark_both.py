"""Writes and reads by Penstock and by Spark's Parquet in one session, in turns.

    spark_both.py FOLDER MEGABYTES ROUNDS KIND…

A line "SAMPLE" and JSON [subject, metric, seconds] for each measurement.
"""

from __future__ import annotations

import json
import os
import shutil
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

PENSTOCK, PARQUET, SORTED = "Penstock", "Spark's Parquet", "Spark's Parquet, sorted"
NOTHING = "a Python data source that drops the rows"
BYTES = {"events": 130, "vectors": 1032}  # of a row in Arrow
COLUMNS = {
    "events": (
        "(id * 7919) % {rows} AS id",
        "timestamp_seconds(1700000000 + id) AS at",
        "rand(1) AS x",
        "rand(2) AS y",
        "sha2(cast(id AS string), 256) AS name",
    ),
    "vectors": (
        "(id * 7919) % {rows} AS id",
        "transform(sequence(0, 255), i -> cast(rand(3) + i AS float)) AS vector",
    ),
}
ONE = {"events": "x", "vectors": "id"}


def main(folder: Path, megabytes: int, rounds: int, kinds: list[str]) -> None:
    os.environ["PENSTOCK_HOME"] = str(folder / "home")
    import penstock as ps

    spark = ps.spark.session(
        "local[2]",
        spark__driver__memory="3g",
        spark__ui__enabled="false",
        spark__sql__shuffle__partitions="8",
        spark__local__dir=str(folder / "local"),
    )
    for kind in kinds:
        Kind(spark, folder, kind, megabytes).measure(rounds)
    spark.stop()


class Kind:
    def __init__(self, spark: Any, folder: Path, kind: str, megabytes: int) -> None:
        self.spark, self.folder, self.kind = spark, folder, kind
        rows = megabytes * 1_000_000 // BYTES[kind]
        rows += 1 - rows % 2  # so that 7919 and the rows have no common divisor, likely
        while rows % 7919 == 0:
            rows += 2
        self.rows = rows
        self.source = str(folder / f"source-{kind}")
        columns = [each.format(rows=rows) for each in COLUMNS[kind]]
        spark.range(0, rows, 1, 8).selectExpr(*columns).write.parquet(self.source)

    def measure(self, rounds: int) -> None:
        for number in range(rounds):
            parts = [self.penstock, self.parquet, self.in_order, self.nothing]
            for part in parts[number % 4 :] + parts[: number % 4]:
                part(number)

    def frame(self) -> Any:
        return self.spark.read.parquet(self.source)

    def penstock(self, number: int) -> None:
        import penstock as ps

        name = f"{self.kind}-{number}"
        self.took(
            PENSTOCK,
            "write",
            lambda: ps.spark.write(self.frame(), name, key="id", splits={"all": 1}),
        )
        self.took(PENSTOCK, "read", lambda: noop(ps.spark.read(self.spark, name)))
        ten = {"columns": [ONE[self.kind]], "where": [("id", "<", self.rows // 10)]}
        self.took(
            PENSTOCK,
            "a tenth of one column",
            lambda: noop(ps.spark.read(self.spark, name, **ten)),
        )
        shutil.rmtree(self.folder / "home")

    def parquet(self, number: int) -> None:
        self._parquet(PARQUET, number, self.frame())

    def in_order(self, number: int) -> None:
        self._parquet(SORTED, number, self.frame().sort("id"))

    def nothing(self, number: int) -> None:
        """What any writer in Python takes that is given the rows by Spark."""
        self.spark.dataSource.register(dropping())
        self.took(
            NOTHING,
            "write",
            lambda: self.frame().write.format("dropping").mode("append").save(),
        )

    def _parquet(self, subject: str, number: int, frame: Any) -> None:
        path = str(self.folder / f"parquet-{self.kind}-{number}")
        self.took(subject, "write", lambda: frame.write.parquet(path))
        self.took(subject, "read", lambda: noop(self.spark.read.parquet(path)))
        self.took(
            subject,
            "a tenth of one column",
            lambda: noop(self.tenth(self.spark.read.parquet(path))),
        )
        shutil.rmtree(path)

    def tenth(self, frame: Any) -> Any:
        return frame.where(frame.id < self.rows // 10).select(ONE[self.kind])

    def took(self, subject: str, metric: str, call: Callable[[], Any]) -> None:
        began = time.monotonic()
        call()
        sample = [subject, f"{self.kind}: {metric}", time.monotonic() - began]
        print("SAMPLE" + json.dumps(sample), flush=True)


def dropping() -> type:
    from pyspark.sql.datasource import DataSource, DataSourceArrowWriter, WriterCommitMessage

    class Writer(DataSourceArrowWriter):  # type: ignore[misc]
        def write(self, iterator: Any) -> Any:
            for _ in iterator:
                pass
            return WriterCommitMessage()

        def commit(self, messages: Any) -> None: ...

        def abort(self, messages: Any) -> None: ...

    class Dropping(DataSource):  # type: ignore[misc]
        @classmethod
        def name(cls) -> str:
            return "dropping"

        def writer(self, schema: Any, overwrite: bool) -> Any:
            return Writer()

    return Dropping


def noop(frame: Any) -> None:
    frame.write.format("noop").mode("overwrite").save()


if __name__ == "__main__":
    main(Path(sys.argv[1]), int(sys.argv[2]), int(sys.argv[3]), sys.argv[4:])
