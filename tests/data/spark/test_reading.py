"""Versions are read as DataFrames: what is there, and no more than is asked for."""

import datetime

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from tests.data.counting import Counting

from penstock.base.errors import BadInput, Damaged, NotFound
from penstock.data.columns import tensor_array
from penstock.data.preparation import prepare
from penstock.data.spark.reading import read
from penstock.data.spark.writing import write

pytestmark = [pytest.mark.spark, pytest.mark.timeout(600)]

ZONE = datetime.UTC
NOW = datetime.datetime(2026, 1, 2, 3, 4, 5, 678901, ZONE)
ROWS = 6


def everything():
    at = np.arange(ROWS)
    numbers = {
        f"{kind}{bits}": at.astype(f"{kind}{bits}")
        for kind, sizes in (
            ("int", (8, 16, 32, 64)),
            ("uint", (8, 16, 32, 64)),
            ("float", (16, 32, 64)),
        )
        for bits in sizes
    }
    return pa.table(
        {
            "id": at,
            "flag": at % 2 == 1,
            **numbers,
            "gap": pa.array([None, *range(1, ROWS)], pa.int64()),
            "text": [f"ä{i}" for i in at],
            "data": [bytes([i, 255]) for i in at],
            "at": pa.array([NOW] * ROWS, pa.timestamp("us", "UTC")),
            "local": pa.array([NOW.replace(tzinfo=None)] * ROWS, pa.timestamp("us")),
            "day": pa.array([NOW.date()] * ROWS, pa.date32()),
            "words": pa.array([[1.5] * i for i in at], pa.list_(pa.float32())),
            "image": pa.FixedShapeTensorArray.from_numpy_ndarray(
                np.arange(ROWS * 6, dtype=np.float32).reshape(ROWS, 2, 3)
            ),
        }
    )


def test_every_column_is_what_it_was(spark, stores):
    prepare(stores, "all", everything, key="id", splits={"all": 1})
    frame = read(stores, spark, "all@1:all")
    rows = [each.asDict() for each in frame.orderBy("id").collect()]
    told = everything().to_pylist()
    image = np.arange(ROWS * 6, dtype=np.float32).reshape(ROWS, 2, 3).tolist()
    for number, row in enumerate(rows):
        told[number] |= {"image": image[number], "at": row["at"]}
        assert row["at"].astimezone(ZONE) == NOW
        assert dict(row) == told[number]
    fields = {each.name: each for each in frame.schema.fields}
    assert fields["id"].metadata == {"penstock.meaning": "key"}


def test_a_version_that_is_read_and_written_is_the_same_rows(spark, stores, manifest):
    made = write(stores, spark.range(500).selectExpr("id", "id * 2 AS x"), "one", key="id")
    frame = None
    for split in ("train", "validation", "test"):
        part = read(stores, spark, f"one@1:{split}")
        frame = part if frame is None else frame.union(part)
    again = write(stores, frame, "two", key="id")
    digests = [{n: s.digest for n, s in manifest(each).splits.items()} for each in (made, again)]
    assert digests[0] == digests[1]


@pytest.fixture
def many(stores, monkeypatch):
    """A version "many" of 8 shards of 512 rows in order of `id`, 0 to 4095."""
    from penstock.data.preparation import storing

    monkeypatch.setattr(storing, "SHARD_ROWS", 512)
    ids = np.arange(4096)
    chance = np.random.default_rng(1)
    wide = [chance.bytes(750).hex() for _ in ids]
    table = pa.table({"id": ids, "half": ids / 2, "name": [f"n{i}" for i in ids], "wide": wide})
    made = prepare(stores, "many", lambda: table, key="id", splits={"all": 1}, workers=0)
    assert made.version.summary["rows"] == 4096
    return "many@1:all"


def shards_read(frame):
    """Files that Spark reads itself, or partitions that its Python processes read."""
    return len(frame.inputFiles()) or frame.rdd.getNumPartitions()


@pytest.mark.parametrize(
    ("where", "shards", "rows"),
    [
        ([("id", "<", 512)], 1, 512),
        ([("id", ">=", 3000)], 3, 1096),
        ([("id", "=", 700)], 1, 1),
        ([("id", "in", [1, 4000])], 2, 2),
        ([("id", ">", 511), ("id", "<=", 1024)], 2, 513),
        ([("half", "<=", 10.0)], 1, 21),
        ([("half", ">", 2000.0)], 8, 95),  # NaN is greater, and the statistics do not tell of it
        ([("name", "=", "n7")], 1, 1),  # the shortest names are in the first shard
        ([("id", "<", 0)], 1, 0),
    ],
)
def test_shards_that_cannot_hold_what_is_asked_for_are_not_read(
    spark, stores, many, where, shards, rows
):
    for verify in (False, True):
        frame = read(stores, spark, many, where=where, verify=verify)
        assert frame.count() == rows
        assert shards_read(frame) == shards


def test_times_are_compared_as_they_are_meant(spark, stores, monkeypatch):
    from penstock.data.preparation import storing

    monkeypatch.setattr(storing, "SHARD_ROWS", 64)
    hours = [NOW + datetime.timedelta(hours=i) for i in range(256)]

    local = [t.replace(tzinfo=None) for t in hours]
    days = [t.date() for t in hours]
    table = pa.table({"id": np.arange(256), "at": hours, "local": local, "day": days})
    prepare(stores, "times", lambda: table, key="id", splits={"all": 1}, workers=0)
    for column, value in (("at", hours[100]), ("local", local[100])):
        frame = read(stores, spark, "times", where=[(column, ">=", value)], columns=["id"])
        assert frame.columns == ["id"]
        assert sorted(row["id"] for row in frame.collect()) == list(range(100, 256))
        assert shards_read(frame) == 3
    frame = read(stores, spark, "times", where=[("day", "<", days[30])])
    assert frame.count() == sum(day < days[30] for day in days)
    assert shards_read(frame) == 1


def test_filters_of_one_query_are_none_of_another(spark, stores, many):
    """What Spark up to 4.3 makes of `pushFilters` is: why there is none."""
    frame = read(stores, spark, many)
    assert frame.where("id < 10").count() == 10
    assert frame.count() == 4096
    assert frame.where("id >= 4000").count() == 96
    assert frame.where("id < 10").union(frame.where("id > 4090")).count() == 15


def test_some_columns_are_read_by_their_bytes_alone(stores, many):
    from penstock.data.dataset import open_dataset
    from penstock.data.shard_parts import parts_of, read_part

    data = open_dataset(stores, many)
    blobs = Counting(stores.blobs)
    column = [data.schema["id"]]
    parts = parts_of(data.manifest, "all", column)
    found = [pa.concat_tables(read_part(blobs, each, column))["id"].to_pylist() for each in parts]
    assert [each for part in found for each in part] == list(range(4096))
    assert blobs.whole == 0 and blobs.opened == 8
    assert 0 < blobs.bytes < data.manifest.bytes / 2


def test_columns_are_chosen(spark, stores, many):
    for verify in (False, True):
        frame = read(stores, spark, many, columns=["name", "id"], verify=verify)
        assert frame.columns == ["id", "name"]
        assert frame.where("id = 9").collect()[0].asDict() == {"id": 9, "name": "n9"}


def plain():
    """What Spark reads by itself: every dtype, with gaps, at the ends of what it can hold."""
    gap = [None, 1, 0, 1, None, 0]
    numbers = {kind: pa.array(gap, pa.type_for_alias(kind)) for kind in _NUMBERS}
    ends = {
        f"{kind}_ends": pa.array([np.iinfo(kind).min, np.iinfo(kind).max] * 3, kind)
        for kind in _NUMBERS
        if "int" in kind
    }
    old = [datetime.datetime(1, 1, 1), datetime.datetime(1582, 10, 10), None] * 2
    return pa.table(
        {
            "id": np.arange(ROWS),
            "flag": pa.array([None, True, False] * 2),
            **numbers,
            **ends,
            "odd": [float("nan"), float("inf"), -0.0, None, 5e-324, 1.5],
            "Text": pa.array(["a", None, "", "ä\0b", "a", "a"]).dictionary_encode(),
            "data": [b"", None, b"\0\xff", b"a", b"a", b""],
            "seconds": pa.array(old, pa.timestamp("s")),
            "millis": pa.array(old, pa.timestamp("ms", "Europe/Berlin")),
            "micros": pa.array(old, pa.timestamp("us", "UTC")),
            "day": pa.array([None if each is None else each.date() for each in old]),
            "a.b `c` d": ["x"] * ROWS,
        }
    )


_NUMBERS = ("int8", "int16", "int32", "int64", "uint8", "uint16", "uint32", "uint64",
            "float32", "float64")  # fmt: skip


def test_what_spark_reads_by_itself_is_what_its_python_processes_read(spark, stores):
    prepare(stores, "plain", plain, key="id", splits={"all": 1})
    own, ours = (read(stores, spark, "plain", verify=each) for each in (False, True))
    assert len(own.inputFiles()) == 1 and ours.inputFiles() == []
    assert own.schema == ours.schema
    assert own.exceptAll(ours).count() == ours.exceptAll(own).count() == 0
    assert own.count() == ROWS
    few = read(stores, spark, "plain", columns=["day", "uint64_ends"])
    assert few.orderBy("uint64_ends").collect()[-1]["uint64_ends"] == 2**64 - 1


def test_tensors_and_lists_are_read_by_spark_itself(spark, stores, monkeypatch):
    from penstock.data.preparation import storing

    monkeypatch.setattr(storing, "SHARD_ROWS", 256)
    rows = 1000
    chance = np.random.default_rng(4)
    lists = [list(range(int(n))) for n in chance.integers(1, 99, rows)]
    table = pa.table(
        {
            "id": np.arange(rows),
            "text": [f"t{i}" for i in range(rows)],
            "x": [None if i % 3 else i / 2 for i in range(rows)],
            "cube": tensor_array(chance.random((rows, 2, 3, 20), "f4")),
            "list": pa.array(lists, pa.list_(pa.int64())),
        }
    )
    prepare(stores, "both", lambda: table, key="id", splits={"all": 1}, workers=0)
    own, ours = (read(stores, spark, "both", verify=each) for each in (False, True))
    assert len(own.inputFiles()) == 4 and ours.inputFiles() == []
    assert own.schema == ours.schema and own.columns == table.column_names
    found, told = (sorted(frame.collect()) for frame in (own, ours))
    assert found == told and [row["list"] for row in found] == lists
    spark.conf.set("spark.sql.files.maxPartitionBytes", "20000")  # files are cut into many
    try:
        assert read(stores, spark, "both").rdd.getNumPartitions() > 2 * 4
        assert sorted(read(stores, spark, "both").collect()) == found
    finally:
        spark.conf.unset("spark.sql.files.maxPartitionBytes")
    few = read(stores, spark, "both", columns=["list"], where=[("id", "<", 300)])
    assert len(few.inputFiles()) == 2 and few.count() == 300


def test_no_row_is_lost_to_what_spark_thinks_of_the_files(spark, stores):
    """NaN is greater than all to it; it compares milliseconds with whole ones."""
    near = [datetime.datetime.fromtimestamp(0.001 * each, ZONE) for each in range(4)]
    table = pa.table(
        {
            "id": np.arange(4),
            "x": [1.0, float("nan"), 2.0, 5.0],
            "at": pa.array(near, pa.timestamp("ms", "UTC")),
        }
    )
    prepare(stores, "odd", lambda: table, key="id", splits={"all": 1})
    soon = "TIMESTAMP '1970-01-01 00:00:00.000500Z'"
    for verify in (False, True):
        frame = read(stores, spark, "odd", verify=verify)
        assert len(frame.inputFiles()) == (not verify)
        for condition, rows in (
            ("x > 7", [1]),
            ("x >= 7", [1]),
            ("x = double('NaN')", [1]),
            (f"at < {soon}", [0]),
            ("x < 2", [0]),
        ):
            found = sorted(row["id"] for row in frame.where(condition).collect())
            assert found == rows, (condition, verify)
        given = read(stores, spark, "odd", where=[("x", ">", 7.0)], verify=verify)
        assert [row["id"] for row in given.collect()] == [1]


def test_names_that_differ_by_case_alone_are_read_by_python(spark, stores):
    table = pa.table({"id": [1, 2], "x": [1, 2], "X": [3, 4]})
    prepare(stores, "cases", lambda: table, key="id", splits={"all": 1})
    frame = read(stores, spark, "cases", columns=["id", "x"])
    assert sorted(map(tuple, frame.collect())) == [(1, 1), (2, 2)]


def test_damage_is_seen_in_the_columns_that_are_read(spark, stores, many):
    from penstock.data.dataset import open_dataset
    from penstock.data.shard_parts import parts_of, read_part

    shard = open_dataset(stores, many).manifest.shards_of("all")[3]
    path = stores.blobs.path(shard.digest)
    groups = pq.ParquetFile(path).metadata.row_group(0)
    where = {c.path_in_schema: c.data_page_offset + c.total_compressed_size // 2
             for c in map(groups.column, range(groups.num_columns))}  # fmt: skip
    data = bytearray(path.read_bytes())
    data[where["half"]] ^= 1
    path.chmod(0o644)
    path.write_bytes(data)
    assert read(stores, spark, many, columns=["id", "name"]).groupBy().max("id").count() == 1
    with pytest.raises(Exception, match="checksum"):
        read(stores, spark, many).groupBy().max("half").collect()
    with pytest.raises(Exception, match="is damaged"):
        read(stores, spark, many, verify=True).groupBy().max("id").collect()
    half = [open_dataset(stores, many).schema["half"]]
    part = parts_of(open_dataset(stores, many).manifest, "all", half)[3]
    with pytest.raises(Damaged, match="CRC"):
        list(read_part(stores.blobs, part, half))


def test_what_cannot_be_read_is_said_before_spark_is_asked(spark, stores, many):
    with pytest.raises(NotFound, match='has no split "al"'):
        read(stores, spark, "many@1:al")
    with pytest.raises(NotFound, match="nmae"):
        read(stores, spark, many, columns=["nmae"])
    with pytest.raises(BadInput, match="columns is one text"):
        read(stores, spark, many, columns="id")
    for where in ([("di", "<", 1)], [("id", "~", 1)], [("id", "<", None)], ["id < 1"]):
        with pytest.raises(BadInput, match=r"where|no condition"):
            read(stores, spark, many, where=where)
    with pytest.raises(BadInput, match="this is a str, not a session"):
        read(stores, "spark", many)
    times = pa.table({"id": [1, 2], "clock": pa.array([1, 2], pa.time64("us"))})
    prepare(stores, "times", lambda: times, key="id", splits={"all": 1})
    with pytest.raises(BadInput, match='"clock" holds time64'):
        read(stores, spark, "times@1:all")
    assert read(stores, spark, "times@1:all", columns=["id"]).count() == 2


def test_the_facade_writes_and_reads(spark, tmp_path, monkeypatch, capsys):
    import penstock as ps

    monkeypatch.setenv("PENSTOCK_HOME", str(tmp_path / "home"))
    monkeypatch.setenv("PENSTOCK_BLOBS", f"file://{tmp_path}/blobs")
    made = ps.spark.write(spark.range(100), "events", key="id", splits={"all": 1})
    assert made.reference == "events@1"
    assert ps.spark.read(spark, "events").count() == 100
    assert ps.spark.session().sparkContext is spark.sparkContext
    assert "running, because events has no version yet" in capsys.readouterr().err
    with pytest.raises(BadInput, match='has no option "kye"'):
        ps.spark.write(spark.range(100), "events", kye="id")
