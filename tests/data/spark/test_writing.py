"""DataFrames become versions: one each, the same whatever the partitions and whoever is killed."""

import threading
import time

import pyarrow as pa
import pytest

from penstock.base.errors import BadInput, UserCodeFailed
from penstock.base.settings import load_settings
from penstock.data.preparation import prepare
from penstock.data.reading import read_split
from penstock.data.spark import writing
from penstock.data.spark.session import estimated_bytes
from penstock.data.spark.writing import write
from penstock.data.types import Episode
from penstock.jobs.stores import open_stores

pytestmark = [pytest.mark.spark, pytest.mark.timeout(600)]

SPLITS = {"train": 0.8, "test": 0.2}
COLUMNS = "id", "id * 7 % 1000 AS x", "concat('n', id) AS name", "array(id, id + 1) AS pair"


def events(spark, rows=1000, partitions=3):
    return spark.range(rows).repartition(partitions).selectExpr(*COLUMNS)


def plain(rows=1000):
    """The rows of `events`, in order of their key."""
    return [{"id": i, "x": i * 7 % 1000, "name": f"n{i}", "pair": [i, i + 1]} for i in range(rows)]


def arrow(rows=1000):
    pairs = pa.array([each["pair"] for each in plain(rows)], pa.list_(pa.int64()))
    table = pa.Table.from_pylist(plain(rows)).drop_columns(["pair"])
    return table.append_column("pair", pairs)


def by_id(row):
    return row["id"]


def contents(manifest):
    return {name: (each.rows, each.digest) for name, each in manifest.splits.items()}


def test_the_version_is_the_one_that_prepare_makes_of_the_rows_in_order_of_their_key(
    spark, stores, manifest, versions
):
    made = write(stores, events(spark), "events", key="id", splits=SPLITS)
    assert not made.reused and made.reference == "events@1"
    told = prepare(stores, "plain", arrow, key="id", splits=SPLITS)
    assert contents(manifest(made)) == contents(manifest(told))
    assert manifest(made).columns == manifest(told).columns
    ids = read_split(stores.blobs, manifest(made), "train")["id"].to_pylist()
    assert ids == sorted(ids)
    assert sorted(versions()) == ["events@1", "plain@1"]


def test_other_partitions_make_no_other_version(spark, stores, versions):
    write(stores, events(spark), "events", key="id", splits=SPLITS)
    again = write(stores, events(spark, partitions=5), "events", key="id", splits=SPLITS)
    assert again.reused and again.reference == "events@1"
    assert "its rows, key and splits are the same" in again.why
    more = write(stores, events(spark, 1001), "events", key="id", splits=SPLITS)
    assert not more.reused and more.reference == "events@2" and "its rows changed" in more.why
    back = write(stores, events(spark), "events", key="id", splits=SPLITS)
    assert back.reference == "events@3" and "reused the rows of events@1" in back.why


def test_a_dataframe_is_what_prepare_takes(spark, stores, manifest):
    made = prepare(stores, "events", events(spark), key="id", splits=SPLITS)
    told = write(stores, events(spark), "other", key="id", splits=SPLITS)
    assert contents(manifest(made)) == contents(manifest(told))
    with pytest.raises(BadInput, match="dedupe cannot be given"):
        prepare(stores, "events", events(spark), key="id", dedupe="key")


def test_without_a_key_the_content_names_a_row_and_a_function_may(spark, stores, manifest):
    made = write(stores, events(spark, 60), "content", splits={"all": 1})
    told = prepare(stores, "plain", lambda: arrow(60), splits={"all": 1})
    ours, theirs = (
        {row["key"]: row["id"] for row in rows(stores, manifest(each))} for each in (made, told)
    )
    assert ours == theirs and list(ours) == sorted(ours)

    def named(row):
        return f"{row['id']:04d}"

    made = write(stores, events(spark, 60), "named", key=named, splits={"all": 1})
    keys = [row["key"] for row in rows(stores, manifest(made))]
    assert keys == [f"{i:04d}" for i in range(60)]

    def picky(row):
        raise ValueError(f"no {row['id']}")

    with pytest.raises(UserCodeFailed, match=r"picky raised ValueError: no \d+"):
        write(stores, events(spark, 60), "picky", key=picky, splits={"all": 1})


def rows(stores, manifest, split="all"):
    return read_split(stores.blobs, manifest, split).to_pylist()


def test_rows_of_one_value_stay_together(spark, stores, manifest):
    frame = events(spark).selectExpr("*", "id % 20 AS episode")
    made = write(stores, frame, "episodes", key="id", splits=SPLITS, types={"episode": Episode()})
    found = {
        name: {row["episode"] for row in rows(stores, manifest(made), name)} for name in SPLITS
    }
    assert found["train"] | found["test"] == set(range(20))
    assert not found["train"] & found["test"]


def test_shards_follow_from_the_rows_and_not_from_the_partitions(spark, stores, manifest):
    frame = spark.range(300_000)
    one, other = (
        manifest(write(stores, frame.repartition(parts), f"n{parts}", key="id", splits={"all": 1}))
        for parts in (2, 7)
    )
    assert one.shards.digests() == other.shards.digests()
    assert one.shards.numbers("rows").tolist() == [1 << 18, 300_000 - (1 << 18)]


def test_what_spark_sorts_because_it_is_large_is_the_same_version(
    spark, stores, manifest, monkeypatch
):
    frame = spark.range(300_000).repartition(5)
    told = write(stores, frame, "merged", key="id", splits=SPLITS)
    monkeypatch.setattr(writing, "_SORTED", 0)
    sorted_once = []
    monkeypatch.setattr(type(frame), "sort", once_more(type(frame).sort, sorted_once))
    made = write(stores, frame, "sorted", key="id", splits=SPLITS)
    assert sorted_once and manifest(made).shards.digests() == manifest(told).shards.digests()


def once_more(method, calls):
    def run(self, *given):
        calls.append(given)
        return method(self, *given)

    return run


def test_what_spark_cannot_estimate_is_large(spark):
    assert estimated_bytes(spark.range(1000)) < 1 << 20
    both = spark.range(1 << 40).crossJoin(spark.range(1 << 40))
    assert estimated_bytes(both) > writing._SORTED


def test_a_key_in_two_splits_is_told_with_its_partitions(spark, stores, versions):
    frame = spark.range(200).repartition(3)
    frame = frame.selectExpr("id % 150 AS id", "if(id < 150, 'train', 'test') AS split")
    with pytest.raises(BadInput, match="keys name several rows") as caught:
        write(stores, frame, "twice", key="id", splits="split")
    assert caught.value.facts["count"] == 50
    assert "(partition " in caught.value.what
    assert versions() == []


@pytest.mark.parametrize(
    ("columns", "key", "told"),
    [
        (["id % 10 AS id"], "id", "keys name several rows: "),
        (["nullif(id, 7) AS id"], "id", "cannot name a sample"),
        (["id", "id / 2 AS half"], "half", "cannot name a sample"),
        (["id"], "di", '"di" is not in the data'),
        (["id", "cast(id AS decimal(9, 2)) AS price", "map(1, id) AS m"], "id",
         'no dataset can hold: "price" is decimal(9,2), "m" is map<int,bigint>'),
        (["id", "id AS key"], by_id, 'has a column "key"'),
    ],
)  # fmt: skip
def test_what_cannot_be_meant_is_one_error_and_nothing_is_published(
    spark, stores, versions, columns, key, told
):
    frame = spark.range(100).selectExpr(*columns)
    with pytest.raises(BadInput) as caught:
        write(stores, frame, "bad", key=key, splits={"all": 1})
    assert told in caught.value.what and caught.value.fix
    assert versions() == []


def test_a_dataframe_without_rows_and_a_split_without_any_are_refused(spark, stores, versions):
    with pytest.raises(BadInput, match="has no rows"):
        write(stores, spark.range(10).where("id < 0"), "empty", key="id")
    with pytest.raises(BadInput, match='split "rare" got none of the 2 rows'):
        write(stores, spark.range(2), "few", key="id", splits={"most": 0.999999, "rare": 0.000001})
    assert versions() == []


@pytest.mark.long
def test_blobs_that_executors_do_not_reach_are_refused_before_any_task_runs(spark, tmp_path):
    settings = load_settings(folder=tmp_path, home=tmp_path / "home")
    far = "which the cluster does not reach"
    with open_stores(settings) as near, pytest.raises(BadInput, match=far):
        write(near, spark.range(10), "events", key="id")
    memory = load_settings(folder=tmp_path, home=tmp_path / "home", blobs="memory://")
    with open_stores(memory) as near, pytest.raises(BadInput, match="in this process's memory"):
        write(near, spark.range(10), "events", key="id")


def test_what_is_no_dataframe_is_said(stores):
    with pytest.raises(BadInput, match="this is a list, not a DataFrame"):
        write(stores, [1, 2], "events", key="id")


def test_executors_without_penstock_are_told_apart(spark, stores, tmp_path, versions, without):
    with without("penstock"), pytest.raises(BadInput, match="cannot import penstock") as caught:
        write(stores, spark.range(10), "events", key="id", splits={"all": 1})
    assert "Install the same packages" in caught.value.fix
    assert versions() == []


# deaths, retries, second attempts


def once(folder, act):
    """A map of batches that does something else the first time that any task calls it.

    Each attempt of a task leaves a file PARTITION-ID: a stage that is begun anew counts its
    attempts anew, too.
    """

    def run(batches):
        from pyspark import TaskContext

        context = TaskContext.get()
        (folder / f"{context.partitionId()}-{context.taskAttemptId()}").touch()
        for batch in batches:
            if batch.num_rows and not (folder / "flag").exists():
                (folder / "flag").touch()
                act()
            yield batch

    return run


def undisturbed(stores, spark, manifest, frame=None):
    made = write(stores, frame or events(spark), "undisturbed", key="id", splits=SPLITS)
    return contents(manifest(made))


def kill_own_executor():
    import os
    import signal

    import psutil

    executor = next(each for each in psutil.Process().parents() if each.name() == "java")
    os.kill(executor.pid, signal.SIGKILL)
    import time as clock

    clock.sleep(30)


def raise_once():
    raise RuntimeError("the first attempt fails")


def dawdle():
    import time as clock

    clock.sleep(12)


@pytest.mark.faults
@pytest.mark.parametrize(
    "act",
    [
        pytest.param(raise_once, marks=pytest.mark.long),
        pytest.param(kill_own_executor, marks=pytest.mark.long),
        pytest.param(dawdle, marks=pytest.mark.long),
    ],
    ids=lambda each: each.__name__,
)
def test_a_task_that_fails_dies_or_dawdles_leaves_one_version_of_the_same_rows(
    spark, stores, manifest, versions, tmp_path, act
):
    frame = events(spark)
    attempts = tmp_path / "attempts"
    attempts.mkdir()
    disturbed = frame.mapInArrow(once(attempts, act), frame.schema)
    made = write(stores, disturbed, "events", key="id", splits=SPLITS)
    partitions = [file.name.partition("-")[0] for file in attempts.glob("*-*")]
    assert (attempts / "flag").exists() and len(partitions) > len(set(partitions))
    assert versions() == ["events@1"]
    assert contents(manifest(made)) == undisturbed(stores, spark, manifest)


@pytest.mark.long
@pytest.mark.faults
def test_executors_killed_while_units_and_shards_are_written_leave_one_version(
    spark, spark_cluster, stores, manifest, versions, tmp_path
):
    """One dies as soon as the first unit lies in the store, another with the first shard."""
    frame = events(spark, 200_000)
    killed = []
    ended = threading.Event()

    def kill():
        seen = 2  # the task, and the first unit
        while not ended.is_set() and len(killed) < 2:
            if len(list((tmp_path / "blobs").rglob("*"))) > seen:
                spark_cluster.kill_executor()
                killed.append(seen)
                seen = 1 << 30 if len(killed) > 1 else seen + 12
            time.sleep(0.005)

    killer = threading.Thread(target=kill)
    killer.start()
    try:
        made = write(stores, frame, "events", key="id", splits=SPLITS)
    finally:
        ended.set()
        killer.join()
    assert killed
    assert versions() == ["events@1"]
    assert contents(manifest(made)) == undisturbed(stores, spark, manifest, frame)


@pytest.mark.long
@pytest.mark.s3
def test_executors_write_to_an_object_store(spark, tmp_path, s3, manifest):
    settings = load_settings(folder=tmp_path, home=tmp_path / "home", blobs=s3)
    with open_stores(settings) as far:
        made = write(far, events(spark, 100), "events", key="id", splits={"all": 1})
        assert made.version.summary["rows"] == 100
