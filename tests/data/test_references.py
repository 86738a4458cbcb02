"""Large values by reference: read by ranges, and kept alive by the version when they are blobs."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pyarrow as pa
import pytest

from penstock.base.errors import BadInput, NotFound
from penstock.blobs import Blobs, open_blobs
from penstock.data import read_split, to_numpy
from penstock.data.formats.remote import listing
from penstock.data.manifest import read_manifest
from penstock.data.references import Reference
from penstock.data.rows import Blocks

FILM = bytes(range(256))


def test_a_reference_reads_its_range_and_no_more(blobs: Blobs, tmp_path: Path) -> None:
    path = tmp_path / "a film.mp4"
    path.write_bytes(FILM)
    digest = blobs.put(FILM)
    url = "file://" + str(path).replace(" ", "%20")
    for uri in (str(path), url, digest):
        whole = Reference(uri, store=blobs.url)
        assert whole.read() == FILM
        assert whole.read(250) == FILM[250:]
        part = Reference(uri, 10, 20, blobs.url)
        assert part.read() == FILM[10:30]
        assert part.read(15) == FILM[25:30]
        assert part.read(5, 5) == FILM[15:20]
        assert part.read(15, 100) == FILM[25:30]
        assert part.read(30) == b""


def test_what_is_not_there_and_what_is_no_range_are_clear_errors(tmp_path: Path) -> None:
    with pytest.raises(NotFound, match="which a dataset refers to"):
        Reference(str(tmp_path / "gone")).read()
    with pytest.raises(BadInput, match="no store to read it from"):
        Reference("sha256:" + "0" * 64).read()
    with pytest.raises(BadInput, match="from byte -1"):
        Reference("x", -1)
    with pytest.raises(BadInput, match="knows no such addresses"):
        Reference("ftp://there/film").read()
    with pytest.raises(BadInput, match="no bytes -1"):
        Reference("x").read(-1)


def test_references_come_back_from_a_version_and_keep_their_blobs(make: Any, blobs: Blobs) -> None:
    one, two = blobs.put(b"one film"), blobs.put(b"another")
    rows = [
        {"id": 0, "film": Reference(one, 4, 4)},
        {"id": 1, "film": None},
        {"id": 2, "film": Reference(two)},
        {"id": 3, "film": Reference("s3://bucket/film", 1, 2)},
    ]
    data = read_manifest(blobs, make(blobs, rows, shard_rows=2).digest)
    films = to_numpy(read_split(blobs, data, "all"), data.columns, blobs.url)["film"]
    assert films == [row["film"] for row in rows]
    assert films[0].read() == b"film"
    assert films[2].read() == b"another"
    assert {one, two} < set(data.refs)
    objects = data.table("objects")
    assert objects is not None
    assert objects["digest"].to_pylist() == sorted([one, two])


def test_a_struct_with_these_fields_is_a_reference_in_any_order() -> None:
    table = pa.table({"x": [{"length": 3, "uri": "a", "start": 0}, None]})
    blocks = Blocks(table)
    (block,) = blocks
    (column,) = blocks.columns or []
    assert column.kind == "reference"
    assert to_numpy(block, [column])["x"] == [Reference("a", 0, 3), None]


def test_columns_of_references_may_be_given_as_a_list() -> None:
    (block,) = Blocks({"x": [Reference("a"), None]})
    assert block["x"].to_pylist() == [{"uri": "a", "start": 0, "length": None}, None]


def test_content_names_samples_with_lists_and_references(make: Any, blobs: Blobs) -> None:
    def digest(length: int, words: list[int]) -> str:
        rows = [{"film": Reference("a", 0, length), "words": words}, {"film": None, "words": [1]}]
        found: str = make(blobs, rows, key=None).splits["all"].digest
        return found

    assert len({digest(1, [1, 2]), digest(2, [1, 2]), digest(1, [1, 3]), digest(1, [])}) == 4
    assert digest(1, [1, 2]) == digest(1, [1, 2])


@pytest.mark.s3
def test_a_reference_into_an_object_store_reads_its_range(s3: str) -> None:
    open_blobs(s3).put(FILM)
    (url,) = [url for _, url, size, _ in listing(s3) if size == len(FILM)]
    assert Reference(url, 10, 20).read(5, 5) == FILM[15:20]
    assert Reference(url).read() == FILM
    with pytest.raises(NotFound, match="a dataset refers to it"):
        Reference(url.replace("?", "-gone?")).read()
