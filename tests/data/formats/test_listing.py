"""Which files a path, glob or list means, and every way in which they are not there."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from penstock.base.errors import BadInput
from penstock.data.formats import open_source


def write(folder: Path, *names: str, text: str = "a,b\n1,2\n") -> None:
    for name in names:
        path = folder / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(text)


def names(given: object, **options: object) -> list[str]:
    return [each.name for each in open_source(given, **options).inputs()]  # type: ignore[arg-type]


def test_a_folder_is_all_files_below_it_by_name(tmp_path: Path) -> None:
    write(tmp_path, "b.csv", "a/2.csv", "a/10.csv")
    assert names(tmp_path) == ["a/10.csv", "a/2.csv", "b.csv"]


def test_names_start_where_a_glob_has_its_first_pattern(tmp_path: Path) -> None:
    write(tmp_path, "in/a/1.csv", "in/b/2.csv", "in/b/deep/3.csv", "in/x.csv")
    assert names(tmp_path / "in/*/*.csv") == ["a/1.csv", "b/2.csv"]
    everything = ["a/1.csv", "b/2.csv", "b/deep/3.csv", "x.csv"]
    assert names(f"{tmp_path}/in/**/*.csv") == everything
    assert names(f"{tmp_path}/**/deep/*.csv") == ["in/b/deep/3.csv"]
    assert names(f"{tmp_path}/in/?/[12].csv") == ["a/1.csv", "b/2.csv"]


def test_a_list_is_files_and_folders_in_any_order(tmp_path: Path) -> None:
    write(tmp_path, "b.csv", "a.csv", "more/c.csv")
    given = [tmp_path / "more", tmp_path / "b.csv", str(tmp_path / "a.csv")]
    assert names(given) == ["a.csv", "b.csv", "more/c.csv"]


def test_files_of_one_name_in_a_list_keep_what_tells_them_apart(tmp_path: Path) -> None:
    write(tmp_path, "x/a.csv", "y/a.csv")
    given = [f"{tmp_path}/x/a.csv", f"{tmp_path}/y/a.csv"]
    assert names(given) == given


def test_a_file_given_twice_is_read_once(tmp_path: Path) -> None:
    write(tmp_path, "a.csv")
    assert len(names([f"{tmp_path}/a.csv", f"{tmp_path}/a.csv"])) == 1


def test_relative_paths_hold_in_a_worker_elsewhere(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    write(tmp_path, "in/a.csv")
    monkeypatch.chdir(tmp_path)
    spec = open_source("in").spec()
    monkeypatch.chdir("/")
    assert [each.uri for each in open_source(spec).inputs()] == [f"{tmp_path}/in/a.csv"]


def test_a_name_that_holds_pattern_signs_is_a_name(tmp_path: Path) -> None:
    write(tmp_path, "a[1].csv")
    assert names(tmp_path / "a[1].csv") == ["a[1].csv"]


def test_hidden_and_marker_files_are_passed_over(tmp_path: Path) -> None:
    write(tmp_path, "a.csv", ".hidden.csv", "_SUCCESS", ".cache/b.csv")
    assert names(tmp_path) == ["a.csv"]
    assert names(tmp_path / "*") == ["a.csv"]


def test_links_to_files_and_folders_are_followed(tmp_path: Path) -> None:
    write(tmp_path, "real/a.csv")
    (tmp_path / "in").mkdir()
    (tmp_path / "in/folder").symlink_to(tmp_path / "real")
    (tmp_path / "in/b.csv").symlink_to(tmp_path / "real/a.csv")
    assert names(tmp_path / "in") == ["b.csv", "folder/a.csv"]


@pytest.mark.parametrize("given", ["in", "in/**/*.csv"])
def test_a_loop_of_links_is_named(given: str, tmp_path: Path) -> None:
    write(tmp_path, "in/a/a.csv")
    (tmp_path / "in/a/again").symlink_to(tmp_path / "in")
    with pytest.raises(BadInput, match=r"in/a/again is a link to a folder that holds it"):
        open_source(tmp_path / given)


def test_a_link_to_itself_is_named(tmp_path: Path) -> None:
    (tmp_path / "in").mkdir()
    (tmp_path / "in/me.csv").symlink_to("me.csv")
    with pytest.raises(BadInput, match=r"me\.csv is a link that leads nowhere"):
        open_source(tmp_path / "in")


def test_all_missing_files_are_named_with_the_nearest(tmp_path: Path) -> None:
    write(tmp_path, "train.csv")
    with pytest.raises(BadInput) as caught:
        open_source([tmp_path / "trian.csv", tmp_path / "train.csv", tmp_path / "no/such.csv"])
    assert "2 files are not there" in caught.value.what
    assert "trian.csv (did you mean train.csv?)" in caught.value.what
    assert caught.value.facts["missing"] == [f"{tmp_path}/trian.csv", f"{tmp_path}/no/such.csv"]


def test_a_dangling_link_in_a_folder_is_a_missing_file(tmp_path: Path) -> None:
    write(tmp_path, "in/a.csv")
    (tmp_path / "in/b.csv").symlink_to(tmp_path / "gone.csv")
    with pytest.raises(BadInput, match=r"1 file is not there:\s+.*in/b\.csv"):
        open_source(tmp_path / "in")


@pytest.mark.parametrize("given", ["*.csv", "none/*.csv", "**/*.csv"])
def test_a_glob_that_matches_nothing_says_where_it_looked(given: str, tmp_path: Path) -> None:
    with pytest.raises(BadInput, match="no file matches"):
        open_source(tmp_path / given)


def test_an_empty_folder_is_an_error(tmp_path: Path) -> None:
    with pytest.raises(BadInput, match="there is no file in"):
        open_source(tmp_path)
    with pytest.raises(BadInput, match="there is no file in"):
        open_source(tmp_path, format="csv").inputs()


def test_several_formats_in_a_folder_are_listed(tmp_path: Path) -> None:
    write(tmp_path, "a.csv", "b.csv", "c.parquet", "d.xyz", "e.jsonl.gz", "README")
    with pytest.raises(BadInput) as caught:
        open_source(tmp_path)
    for told in ("2 .csv (csv)", "1 .parquet (parquet)", "1 .xyz (unknown)", "1 without extension"):
        assert told in caught.value.what
    assert caught.value.facts["extensions"][".jsonl.gz"] == 1


def test_with_a_format_its_own_extensions_are_taken(tmp_path: Path) -> None:
    write(tmp_path, "a.csv", "README.md")
    assert names(tmp_path, format="csv") == ["a.csv"]


def test_with_a_format_any_extension_will_do(tmp_path: Path) -> None:
    write(tmp_path, "a.data", "b.data")
    assert names(tmp_path, format="csv") == ["a.data", "b.data"]


def test_a_device_is_no_file(tmp_path: Path) -> None:
    os.mkfifo(tmp_path / "pipe.csv")
    with pytest.raises(BadInput, match=r"pipe\.csv is not a file"):
        open_source(tmp_path)
