"""The store refuses, throttles and stalls while data is read and made: ridden out, or one error."""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
from tests.blobs.conftest import Proxy, Seen

from penstock.base.errors import (
    AccessDenied,
    NoCredentials,
    NoSuchBucket,
    PenstockError,
    StoreThrottled,
    StoreUnreachable,
    Unavailable,
)
from penstock.base.layout import Layout
from penstock.base.settings import load_settings
from penstock.blobs import open_blobs
from penstock.data import Loader, Manifest, read_manifest
from penstock.data.formats import open_source
from penstock.data.pipeline.opening import Shards
from penstock.data.preparation import prepare
from penstock.jobs import forks
from penstock.jobs.stores import Stores, open_stores

pytestmark = [pytest.mark.s3, pytest.mark.faults]


@pytest.fixture(scope="module")
def kept(new_bucket: Callable[[], str], moto: str, make: Any) -> tuple[str, Manifest]:
    """(bucket, a dataset of five shards in it)."""
    forks.end()  # the next image sees the keys
    bucket = new_bucket()
    blobs = open_blobs(f"s3://{bucket}/p?endpoint={moto}")
    return bucket, make(blobs, rows=100, shard_rows=20)


@pytest.fixture
def proxy(moto: str) -> Iterator[Proxy]:
    proxy = Proxy(moto)
    proxy.start()
    yield proxy
    proxy.release.set()
    proxy.stop()


Reading = Callable[..., Loader]


@pytest.fixture
def reading(kept: tuple[str, Manifest], proxy: Proxy, tmp_path: Path) -> Iterator[Reading]:
    """`reading(deadline=1, workers=2)`: a loader with an empty cache, behind the proxy."""
    made: list[Loader] = []

    def run(deadline: float = 20, timeout: float = 5, **options: Any) -> Loader:
        url = f"s3://{kept[0]}/p?endpoint={proxy.url}&deadline={deadline:g}&timeout={timeout:g}"
        home = str(tmp_path / f"home-{len(made)}")
        opening = Shards(url, home, kept[1].digest, "all", name="numbers@1")
        options = {"batch_size": 10, "shuffle": False, "opening": opening} | options
        made.append(Loader.over(opening.open(), **options))
        return made[-1]

    yield run
    proxy.release.set()
    for loader in made:
        loader.close()


def ids(batches: Any) -> list[list[int]]:
    return [batch["id"].tolist() for batch in batches]


WHOLE = [list(range(at, at + 10)) for at in range(0, 100, 10)]


def name_of(data: Manifest, number: int) -> str:
    """The end of a shard's key."""
    return data.shards_of("all")[number].digest[-40:]


def once(fault: object, *names: str) -> Callable[[Seen], object]:
    """A fault for the first request of every one of these objects."""
    left = set(names)
    gate = threading.Lock()

    def choose(seen: Seen) -> object:
        with gate:
            found = {name for name in left if name in seen.path}
            left.difference_update(found)
        return fault if found else None

    return choose


@pytest.mark.parametrize(
    ("fault", "workers"),
    [
        ((503, "SlowDown"), 0),
        ((500, "InternalError"), 2),
        ("drop before", 0),
        ("cut", 2),
        ("flip", 2),
        ("hang", 0),
    ],
)
def test_a_store_that_fails_while_an_epoch_is_read_is_ridden_out(
    reading: Reading, kept: tuple[str, Manifest], proxy: Proxy, fault: object, workers: int
) -> None:
    loader = reading(timeout=0.5, workers=workers)
    names = [name_of(kept[1], number) for number in (1, 3)]
    proxy.fault = once(fault, *names)
    assert ids(loader) == WHOLE
    for name in names:
        assert sum(name in seen.path for seen in proxy.seen) >= 2


@pytest.mark.parametrize(
    ("fault", "kind", "workers"),
    [
        ((503, "SlowDown"), StoreThrottled, 0),
        ((500, "InternalError"), StoreUnreachable, 2),
        ((403, "AccessDenied"), AccessDenied, 2),
        ((404, "NoSuchBucket"), NoSuchBucket, 0),
    ],
)
def test_a_store_that_is_gone_in_the_middle_names_the_shard_and_reading_goes_on_from_there(
    reading: Reading,
    kept: tuple[str, Manifest],
    proxy: Proxy,
    fault: object,
    kind: type[PenstockError],
    workers: int,
) -> None:
    loader = reading(deadline=0.3, workers=workers, ahead_bytes=1)
    gone = name_of(kept[1], 3)
    proxy.fault = lambda seen: fault if gone in seen.path else None
    given: list[list[int]] = []
    with pytest.raises(kind) as caught:
        for batch in loader:
            given.append(batch["id"].tolist())
    assert given == WHOLE[: len(given)] and len(given) <= 6
    assert str(caught.value).startswith('shard 3 of split "all" of dataset numbers@1 cannot be')
    facts = caught.value.facts
    assert (facts["dataset"], facts["split"], facts["shard"]) == ("numbers@1", "all", 3)
    proxy.fault = lambda seen: None
    state = loader.state()
    assert state["next"] == len(given)
    patient = reading()
    patient.load_state(state)
    assert given + ids(patient) == WHOLE


@pytest.mark.parametrize(("fault", "workers"), [("hang", 0), ((500, "InternalError"), 2)])
def test_a_preparation_publishes_nothing_when_the_store_goes_and_then_does_the_rest(
    new_bucket: Callable[[], str], proxy: Proxy, tmp_path: Path, fault: object, workers: int
) -> None:
    for number in range(6):
        lines = "".join(f"{10 * number + i},{i}\n" for i in range(10))
        (tmp_path / f"part-{number}.csv").write_text(f"id,x\n{lines}")
    blobs = f"s3://{new_bucket()}/p?endpoint={proxy.url}"
    hasty, patient = (
        load_settings(folder=tmp_path, environment={}, home=tmp_path / "home", blobs=blobs + more)
        for more in ("&deadline=0.5&timeout=0.5", "&deadline=20&timeout=5")
    )
    puts = [0]

    def gone(seen: Seen) -> object:
        puts[0] += seen.method == "PUT"
        return fault if puts[0] > 4 else None

    def make(stores: Stores, workers: int) -> Any:
        return prepare(
            stores, "data", str(tmp_path / "*.csv"), key="id", unit_bytes=0, workers=workers
        )

    with open_stores(hasty) as stores:
        proxy.fault = gone
        with pytest.raises(StoreUnreachable, match="does not serve"):
            make(stores, workers)
        with stores.meta.read() as meta:
            assert meta.versions("dataset") == []
            assert meta.oldest_pin() is None
    proxy.release.set()
    proxy.fault = lambda seen: None
    with open_stores(patient) as stores:
        made = make(stores, 0)
        assert (made.reference, made.version.summary["rows"]) == ("data@1", 60)


@pytest.fixture
def without_keys(monkeypatch: pytest.MonkeyPatch, tmp_path: Path, proxy: Proxy) -> None:
    for name in ("AWS_ACCESS_KEY_ID", "AWS_SECRET_ACCESS_KEY"):
        monkeypatch.delenv(name)
    monkeypatch.setenv("HOME", str(tmp_path))
    monkeypatch.setenv("AWS_CONTAINER_CREDENTIALS_FULL_URI", "http://127.0.0.1:9/latest/api/token")


def test_missing_credentials_are_said_by_sources_and_by_loaders(
    without_keys: None, kept: tuple[str, Manifest], proxy: Proxy, tmp_path: Path
) -> None:
    bucket, data = kept
    options = f"?endpoint={proxy.url}&deadline=0.2"
    with pytest.raises(NoCredentials, match="AWS_ACCESS_KEY_ID"):
        open_source(f"s3://{bucket}/raw/*.csv{options}").inputs()
    blobs = open_blobs(f"s3://{bucket}/p{options}")
    with pytest.raises(NoCredentials, match="AWS_ACCESS_KEY_ID"):
        read_manifest(blobs, data.digest)
    loader = Loader(blobs, Layout(tmp_path), data, "all", batch_size=10, name="numbers@1")
    with pytest.raises(NoCredentials, match=r"numbers@1 cannot be read.*no credentials") as caught:
        next(iter(loader))
    assert "AWS_ACCESS_KEY_ID" in caught.value.fix
    loader.close()
    assert isinstance(caught.value, Unavailable)
    assert proxy.seen == []
