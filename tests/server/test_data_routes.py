"""Dataset versions over HTTP: what `penstock data` does, as far as no path of the disk is named."""

from __future__ import annotations

from typing import Any

import numpy as np
import pyarrow as pa
import pytest

from penstock import data

GOOD, MISSING, WRONG, CONFLICT = 200, 404, 400, 409


def rows(n: int = 20, shift: int = 0) -> Any:
    for i in range(n):
        yield {"id": i, "x": np.full((8, 8), i + shift, np.float32), "label": f"l{i % 3}"}


@pytest.fixture
def filled(home: Any) -> Any:
    options: dict[str, Any] = {"key": "id", "splits": {"train": 0.5, "test": 0.5}}
    data.prepare(home.stores, "team/digits", rows, **options)
    data.prepare(home.stores, "team/digits", rows, params={"n": 25, "shift": 1}, **options)
    return home


@pytest.fixture
def ask(filled: Any, client: Any) -> Any:
    def run(method: str, path: str, status: int = GOOD, **more: Any) -> Any:
        answer = client.request(method, path, **more)
        assert answer.status_code == status, answer.text
        return answer.json()

    return run


def test_rows_are_summarised(ask: Any) -> None:
    found = ask("GET", "/api/data-rows/team/digits@1:test?limit=2&start=1&column=id&column=x")
    assert found["reference"] == "team/digits@1:test"
    assert [sorted(row) for row in found["rows"]] == [["id", "x"]] * 2
    assert found["rows"][0]["x"]["shape"] == [8, 8]
    assert ask("GET", "/api/data-rows/team/digits")["reference"] == "team/digits@2:train"


def test_rows_come_whole_as_a_stream_of_arrow(filled: Any, client: Any) -> None:
    answer = client.get("/api/data-stream/team/digits@1:train?column=id&column=x&start=2&stop=5")
    assert answer.headers["content-type"] == "application/vnd.apache.arrow.stream"
    table = pa.ipc.open_stream(answer.content).read_all()
    whole = data.open_dataset(filled.stores, "team/digits@1:train").to_arrow()
    assert table.equals(whole.select(["id", "x"]).slice(2, 3))
    nothing = client.get("/api/data-stream/team/digits@1:train?start=99")
    assert pa.ipc.open_stream(nothing.content).read_all().num_rows == 0


def test_damage_is_an_answer_not_a_torn_stream(filled: Any, client: Any) -> None:
    _flip(filled, "team/digits@1", "train")
    answer = client.get("/api/data-stream/team/digits@1:train")
    assert (answer.status_code, answer.json()["code"]) == (500, "damaged")
    damages = client.post("/api/data-verifications", json={"reference": "team/digits@1"}).json()
    assert damages["whole"] is False
    assert [(each["part"], each["where"]) for each in damages["damages"]] == [("shard", "train/0")]


def test_statistics_lineage_and_differences(ask: Any) -> None:
    columns = ask("GET", "/api/data-statistics/team/digits")
    assert {each["column"]: each["rows"] for each in columns} == {"id": 25, "x": 25, "label": 25}
    assert sum(columns[1]["histogram"]["counts"]) > 0
    tree = ask("GET", "/api/data-lineage/team/digits@2")
    assert (tree["name"], tree["sources"][0]["what"]) == ("team/digits@2", "function")
    diff = ask("GET", "/api/data-diff?old=team/digits@1")
    assert (diff["new"], diff["added"], diff["changed"], diff["equal"]) == (
        "team/digits@2", 5, 20, False,
    )  # fmt: skip


def test_an_alias_moves_by_compare_and_swap_and_tags_are_free(ask: Any) -> None:
    move = {"reference": "team/digits@1", "alias": "stable"}
    assert ask("POST", "/api/data-aliases", json=move)["version"] == 1
    ask("POST", "/api/data-aliases", CONFLICT, json={**move, "expect": 0})
    tags = {"reference": "team/digits@stable", "add": ["gold"]}
    assert ask("POST", "/api/data-tags", json=tags) == ["gold"]
    assert ask("GET", "/api/data?name=team/digits")[1]["tags"] == ["gold"]
    assert ask("GET", "/api/data/team/digits@1")["tags"] == ["gold"]


def test_retention_says_first_what_it_would_do(ask: Any) -> None:
    found = ask("POST", "/api/data-retention", json={"keep": 0})
    assert found["dropped"] == []  # all are young
    assert set(found["kept"]) == {"team/digits@1", "team/digits@2"}


@pytest.mark.parametrize(
    ("method", "path", "status", "body"),
    [
        ("GET", "/api/data-rows/nobody", MISSING, None),
        ("GET", "/api/data-rows/team/digits:trian", MISSING, None),
        ("GET", "/api/data-rows/team/digits?column=imag", MISSING, None),
        ("GET", "/api/data-rows/@@", WRONG, None),
        ("GET", "/api/data-rows/team/digits?limit=0", WRONG, None),
        ("GET", "/api/data-stream/nobody", MISSING, None),
        ("GET", "/api/data-statistics/nobody", MISSING, None),
        ("GET", "/api/data-lineage/team/digits@7", MISSING, None),
        ("GET", "/api/data-diff", WRONG, None),
        ("GET", "/api/data-diff?old=team/digits@1&new=nobody", MISSING, None),
        ("POST", "/api/data-verifications", WRONG, {"path": "/etc"}),
        ("POST", "/api/data-aliases", WRONG, {"reference": "team/digits", "alias": "3"}),
        ("POST", "/api/data-tags", WRONG, {"reference": "team/digits", "add": [""]}),
        ("POST", "/api/data-retention", MISSING, {"name": "nobody"}),
    ],
)
def test_what_cannot_be_is_one_clear_error(
    ask: Any, method: str, path: str, status: int, body: Any
) -> None:
    problem = ask(method, path, status, json=body)
    assert problem["what"]
    assert problem["fix"]


def _flip(home: Any, reference: str, split: str) -> None:
    with home.stores.meta.read() as meta:
        digest = meta.get_version("dataset", reference).digest
    shard = data.read_manifest(home.stores.blobs, digest).shards_of(split)[0]
    path = home.stores.blobs.path(shard.digest)
    content = bytearray(path.read_bytes())
    content[len(content) // 2] ^= 1
    path.chmod(0o644)
    path.write_bytes(content)
