"""What holds for every format: pieces, workers, digests, places, damage, files that change."""

from __future__ import annotations

import json
import os
import random
import re
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pyarrow as pa
import pytest

from penstock.base.errors import BadInput
from penstock.data.formats import BadRecord, Block, Input, open_source

from .examples import EXAMPLES, Example, read


def test_every_row_is_read_once(example: Example) -> None:
    got = read(example.open())
    assert got.table.num_rows == example.rows
    assert not got.bad


def test_pieces_give_the_same_rows_in_the_same_order(pieced: Example) -> None:
    whole = pieced.open()
    cut = pieced.open(piece_bytes=pieced.piece)
    assert len(whole.inputs()) == 1
    assert len(cut.inputs()) > 3
    assert read(cut).table.equals(read(whole).table)
    assert cut.identity == whole.identity


def test_a_piece_is_read_alone(pieced: Example) -> None:
    source = pieced.open(piece_bytes=pieced.piece)
    inputs = source.inputs()
    alone = [read(source, [each]).table for each in reversed(inputs)]
    assert pa.concat_tables(reversed(alone)).equals(read(source).table)


def test_names_sizes_and_order_of_inputs_are_stable(example: Example) -> None:
    first, again = example.open(piece_bytes=example.piece), example.open(piece_bytes=example.piece)
    assert list(first.inputs()) == list(again.inputs())
    names = [each.name for each in first.inputs()]
    assert len(set(names)) == len(names)
    assert all(each.size > 0 for each in first.inputs())


def test_another_process_sees_the_same_inputs_and_digests(example: Example) -> None:
    source = example.open(piece_bytes=example.piece)
    code = (
        "import json, sys\n"
        "from penstock.data.formats import Input, open_source\n"
        "spec, inputs = json.loads(sys.stdin.read())\n"
        "source = open_source(spec)\n"
        "found = [source.digest(Input.from_spec(each)) for each in inputs]\n"
        "print(json.dumps([source.identity, found]))\n"
    )
    inputs = source.inputs()[:5]
    given = json.dumps([source.spec(), [each.spec() for each in inputs]])
    done = subprocess.run(
        [sys.executable, "-c", code],
        input=given,
        capture_output=True,
        text=True,
        check=True,
        cwd="/",
    )
    assert json.loads(done.stdout) == [source.identity, [source.digest(i) for i in inputs]]


def test_a_digest_follows_the_content_and_not_the_time(example: Example) -> None:
    source = example.open()
    before = source.inputs()
    digests = [source.digest(each) for each in before]
    for file in example.files:
        os.utime(file, ns=(1, 1))
    after = source.inputs()
    assert [each.stamp for each in after] != [each.stamp for each in before]
    assert [source.digest(each) for each in after] == digests


def test_places_name_the_file(example: Example) -> None:
    root = example.path.name
    files = {each.name for each in example.files}
    for place in read(example.open()).places:
        assert root in place or any(name in place for name in files), place


def test_a_file_that_changed_since_it_was_listed_is_an_error(example: Example) -> None:
    source = example.open()
    inputs = source.inputs()
    os.utime(example.files[0], ns=(1, 1))
    with pytest.raises(BadInput, match="changed while it was read"):
        read(source, inputs)


def test_a_file_that_changes_while_it_is_read_is_an_error(example: Example) -> None:
    source = example.open()
    inputs = source.inputs()
    blocks = source.read(inputs[-1])
    next(blocks)
    os.utime(example.files[-1], ns=(1, 1))
    if example.path.name in ("pictures", "texts"):  # a small file is read at once
        return
    with pytest.raises(BadInput, match="changed while it was read"):
        list(blocks)


def test_no_file_stays_open(example: Example) -> None:
    source = example.open()
    read(source)  # imports and pools of the libraries below
    before = _open_files()
    half = source.read(source.inputs()[0])
    next(half)
    half.close()
    read(source)
    del half
    assert _open_files() == before


def _open_files() -> int:
    return sum(1 for _ in Path("/proc/self/fd").iterdir())


def test_a_missing_file_is_named(example: Example) -> None:
    source = example.open()
    inputs = source.inputs()
    if example.path.is_dir() and example.path.suffix == ".zarr":
        example.path.rename(example.path.with_name("gone"))
    else:
        example.files[0].unlink()
    with pytest.raises(BadInput) as caught:
        read(source, inputs)
    assert str(example.path) in str(caught.value)
    assert "not there" in str(caught.value)


@pytest.mark.parametrize("kind", EXAMPLES)
def test_damage_anywhere_is_one_clear_error(
    kind: str, tmp_path: Path, chance: random.Random, in_child: Callable[..., int]
) -> None:
    """Cut off, flipped and overwritten files: rows, bad records or BadInput, never anything of a
    library below; in a child, so that a crash would be seen as one."""
    example = EXAMPLES[kind](tmp_path)

    def work() -> None:
        for number in range(12):
            file = chance.choice(example.files)
            good = file.read_bytes()
            file.write_bytes(_damaged(good, number % 3, chance))
            try:
                source = example.open(piece_bytes=chance.choice([example.piece, 1 << 26]))
                for each in (inputs := source.inputs()):
                    source.digest(each)
                for item in source.read_all(inputs):
                    assert isinstance(item, Block | BadRecord)
            except BadInput as error:
                assert error.fix
            finally:
                file.write_bytes(good)

    assert in_child(work) == 0


def _damaged(good: bytes, how: int, chance: random.Random) -> bytes:
    bad = bytearray(good)
    if how == 0:
        return bytes(bad[: chance.randrange(len(bad))])
    at = chance.randrange(len(bad))
    if how == 1:
        bad[at] ^= 1 << chance.randrange(8)
    else:
        bad[at : at + 64] = chance.randbytes(len(bad[at : at + 64]))
    return bytes(bad)


def test_an_input_survives_json() -> None:
    given = Input("a#bytes=0-5", "/data/a", 5, "9-1", ("bytes", 0, 5))
    assert Input.from_spec(given.spec()) == given


def test_a_source_given_as_a_dictionary_takes_options(tmp_path: Path) -> None:
    example = EXAMPLES["csv"](tmp_path)
    source = open_source({"given": str(example.path), "columns": ["x"], "cast": {"x": "float32"}})
    assert read(source).table.schema == pa.schema([("x", pa.float32())])


@pytest.mark.parametrize(
    ("given", "options", "said"),
    [
        ("rows.csv", {"delimeter": ";"}, 'no option "delimeter".*delimiter'),
        ("rows.csv", {"format": "cvs"}, 'no format "cvs".*csv'),
        ("rows.csv", {"columns": ["nmae"]}, 'no column "nmae".*name'),
        ("rows.csv", {"cast": {"x": "flaot"}}, '"flaot" is not the name of an Arrow type'),
        ([], {}, "empty list"),
        (7, {}, "int is not what raw files are named by"),
        ({"path": "x"}, {}, 'needs "given"'),
    ],
)
def test_what_cannot_be_meant_is_told(
    given: object, options: dict[str, object], said: str, tmp_path: Path
) -> None:
    EXAMPLES["csv"](tmp_path)
    given = tmp_path / given if isinstance(given, str) else given
    with pytest.raises(BadInput) as caught:
        open_source(given, **options).inputs()  # type: ignore[arg-type]
    assert re.search(said, str(caught.value), re.DOTALL)
