"""The project's files as blobs: what belongs to them, and laying them out again."""

from __future__ import annotations

import errno
import importlib
import json
import os
import shutil
import subprocess
import sys
import threading
from pathlib import Path

import pytest

from penstock.base.errors import BadInput, Damaged, DiskFull, NotFound
from penstock.base.hashing import canonical_json, digest_bytes, short
from penstock.blobs import open_blobs
from penstock.jobs.source import Entry, git_commit, import_paths, materialise, refs, snapshot
from penstock.jobs.source import files as limits


@pytest.fixture
def blobs():
    return open_blobs("memory://")


@pytest.fixture
def root(tmp_path):
    made = tmp_path / "project"
    made.mkdir()
    return made


def write(root: Path, *paths: str, text: str = "x = 1\n") -> None:
    for path in paths:
        (root / path).parent.mkdir(parents=True, exist_ok=True)
        (root / path).write_text(text)


def listed(digest, blobs) -> list[str]:
    return sorted(json.loads(blobs.get(digest))["files"])


def git(root: Path, *arguments: str) -> None:
    environment = {k: v for k, v in os.environ.items() if not k.startswith("GIT_")}
    who = ["-c", "user.name=t", "-c", "user.email=t@example.org"]
    subprocess.run(
        ["git", "-C", str(root), *who, *arguments], check=True, capture_output=True, env=environment
    )


OURS = ["train.py", "pkg/part.py", "conf/a.yaml", "b.toml", "words.txt", "data.json"]
NOT_OURS = [
    ".hidden/a.py",
    ".env.py",
    "pkg/__pycache__/a.py",
    "node_modules/a.json",
    "lib/python/site-packages/a.py",
    "weights.bin",
    "image.png",
]


def test_source_and_small_settings_are_taken_and_nothing_else(root, blobs):
    write(root, *OURS, *NOT_OURS)
    write(root, "env/a.py", "env/pyvenv.cfg")
    write(root, "large.json", text="1" * (limits.FILE_BYTES + 1))
    assert listed(snapshot(root, blobs), blobs) == sorted(OURS)


def test_in_a_checkout_git_says_what_is_ignored(root, blobs):
    write(root, *OURS, "build/made.py", "secret.json", "gone.py")
    write(root, ".gitignore", text="build/\nsecret.json\n")
    git(root, "init", "-q")
    git(root, "add", "train.py", "gone.py")
    (root / "gone.py").unlink()
    assert listed(snapshot(root, blobs), blobs) == sorted(OURS)
    sub = root / "pkg"
    assert listed(snapshot(sub, blobs), blobs) == ["part.py"]


def test_a_project_that_its_checkout_ignores_is_walked(root, blobs):
    write(root, ".gitignore", text="scratch/\n")
    write(root, "scratch/train.py")
    git(root, "init", "-q")
    assert listed(snapshot(root / "scratch", blobs), blobs) == ["train.py"]


def test_extra_files_are_taken_whatever_they_are(root, blobs, tmp_path):
    write(root, "train.py", "model.onnx", ".hidden/x")
    digest = snapshot(root, blobs, ["model.onnx", root / ".hidden" / "x"])
    assert listed(digest, blobs) == [".hidden/x", "model.onnx", "train.py"]
    write(tmp_path, "outside.txt")
    for extra in ("../outside.txt", "nowhere.txt", tmp_path / "outside.txt"):
        with pytest.raises(BadInput, match="not a file inside"):
            snapshot(root, blobs, [extra])


def test_a_link_that_leads_out_is_not_followed(root, blobs, tmp_path):
    write(tmp_path, "secret.json", "elsewhere/a.py")
    write(root, "train.py", "real.py")
    (root / "secret.json").symlink_to(tmp_path / "secret.json")
    (root / "elsewhere").symlink_to(tmp_path / "elsewhere")
    (root / "inner.py").symlink_to(root / "real.py")
    assert listed(snapshot(root, blobs), blobs) == ["inner.py", "real.py", "train.py"]


def test_the_same_files_give_the_same_digest(root, blobs):
    write(root, *OURS)
    first = snapshot(root, blobs)
    assert snapshot(root, blobs) == first
    write(root, "train.py", text="x = 2\n")
    assert snapshot(root, blobs) != first


def test_a_project_beyond_the_limits_is_refused_and_the_heaviest_folder_named(
    root, blobs, monkeypatch
):
    monkeypatch.setattr(limits, "FILES", 10)
    write(root, "train.py", "pyproject.toml", *(f"data/{n}.json" for n in range(20)))
    with pytest.raises(BadInput, match=r"more than 10 files .* in data"):
        snapshot(root, blobs)
    assert list(blobs.list()) == []


def test_of_a_folder_that_is_no_project_and_too_large_only_what_is_imported_is_taken(
    root, blobs, monkeypatch
):
    monkeypatch.setattr(limits, "FILES", 10)
    monkeypatch.setattr(limits, "is_project", lambda root: False)
    write(
        root, "train.py", text="import helper, pkg.late\ndef fit():\n    from pkg.part import f\n"
    )
    write(root, "helper.py", "pkg/__init__.py", "pkg/part.py", "pkg/late.py", "pkg/other.py")
    write(root, *(f"data/{n}.json" for n in range(20)))
    digest = snapshot(root, blobs, entry=Entry("train", "fit", root))
    assert listed(digest, blobs) == [
        "helper.py",
        "pkg/__init__.py",
        "pkg/late.py",
        "pkg/part.py",
        "train.py",
    ]
    with pytest.raises(BadInput):
        snapshot(root, blobs)


def test_a_walk_through_a_huge_folder_gives_up(root, blobs, monkeypatch):
    monkeypatch.setattr(limits, "LOOKED_AT", 50)
    write(root, *(f"{n}.bin" for n in range(60)))
    with pytest.raises(BadInput, match="more than"):
        snapshot(root, blobs)


def test_a_folder_of_installed_packages_has_no_source_of_ours(blobs):
    import numpy

    assert listed(snapshot(Path(numpy.__file__).parents[1], blobs), blobs) == []


def test_what_was_snapshot_is_laid_out_again_and_can_be_imported(
    root, blobs, tmp_path, monkeypatch
):
    write(root, "train.py", text="import snapshot_helper\nvalue = snapshot_helper.x\n")
    write(root, "snapshot_helper.py", text="x = 41\n")
    digest = snapshot(root, blobs)
    shutil.rmtree(root)
    folder = materialise(digest, blobs, tmp_path / "cache")
    assert folder == tmp_path / "cache" / short(digest, 64)
    monkeypatch.syspath_prepend(str(folder))
    monkeypatch.setattr(sys, "dont_write_bytecode", True)
    assert importlib.import_module("snapshot_helper").x == 41
    del sys.modules["snapshot_helper"]


def test_code_of_the_project_from_other_folders_is_taken_along(root, blobs, tmp_path, monkeypatch):
    """scripts/train.py imports a package of src/, and a module of scripts/lib/."""
    write(root, "scripts/train.py", text="import snapped.part\nimport snapped_late\nimport numpy\n")
    write(root, "src/snapped/__init__.py", "src/snapped/lazy.py")
    write(root, "src/snapped/part.py", text="y = 42\n")
    write(root, "scripts/lib/snapped_late.py", "unrelated/z.py")
    for place in ("src", "scripts/lib"):
        monkeypatch.syspath_prepend(str(root / place))
    scripts = root / "scripts"
    digest = snapshot(scripts, blobs, entry=Entry("train", "fit", scripts))
    folder = materialise(digest, blobs, tmp_path / "cache")
    paths = import_paths(digest, blobs, folder)
    assert [path.relative_to(folder).as_posix() for path in paths] == [".", "lib", ".others/2"]
    assert (folder / ".others/2/snapped/lazy.py").is_file()
    assert len(listed(digest, blobs)) == 5
    assert set(refs(digest, blobs)) == {found.digest for found in blobs.list()}

    shutil.rmtree(root)
    code = "import train, snapped.part; print(snapped.part.y, snapped.part.__file__)"
    done = subprocess.run(
        [sys.executable, "-c", code],
        env={**os.environ, "PYTHONPATH": os.pathsep.join(map(str, paths))},
        capture_output=True,
        text=True,
        check=True,
    )
    assert done.stdout.startswith(f"42 {folder}")


def test_a_snapshot_that_is_laid_out_is_not_written_again(root, blobs, tmp_path):
    write(root, *OURS)
    digest = snapshot(root, blobs)
    first = materialise(digest, blobs, tmp_path / "cache")
    inode = first.stat().st_ino
    for found in blobs.list():
        if found.digest != digest:
            blobs.condemn(found.digest)
            blobs.purge(found.digest)
    assert materialise(digest, blobs, tmp_path / "cache").stat().st_ino == inode


def test_a_file_that_lost_its_bytes_is_laid_out_anew(root, blobs, tmp_path):
    write(root, *OURS)
    digest = snapshot(root, blobs)
    folder = materialise(digest, blobs, tmp_path / "cache")
    (folder / "train.py").chmod(0o644)
    (folder / "train.py").write_text("")
    assert (materialise(digest, blobs, tmp_path / "cache") / "train.py").read_text() == "x = 1\n"


def test_many_that_ask_at_once_get_one_whole_folder(root, blobs, tmp_path):
    write(root, *(f"m{n}.py" for n in range(50)))
    digest = snapshot(root, blobs)
    barrier, seen = threading.Barrier(6), []

    def ask() -> None:
        barrier.wait()
        seen.append(len(list(materialise(digest, blobs, tmp_path / "cache").iterdir())))

    threads = [threading.Thread(target=ask) for _ in range(6)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert seen == [50] * 6
    assert [p.name for p in (tmp_path / "cache").iterdir()] == [short(digest, 64)]


@pytest.mark.parametrize(
    "path", ["../a.py", "/etc/a.py", "a/../../b.py", "", "a//b.py", "./a.py", "a\\b.py", "c:a.py"]
)
def test_a_path_that_leads_out_is_refused_and_nothing_is_written(blobs, tmp_path, path):
    file = {"digest": blobs.put(b"x"), "bytes": 1}
    digest = blobs.put(canonical_json({"format": 1, "paths": [""], "files": {path: file}}))
    with pytest.raises(Damaged):
        materialise(digest, blobs, tmp_path / "cache")
    assert not (tmp_path / "cache").exists()


@pytest.mark.parametrize(
    "manifest",
    [
        b"{}",
        b"[]",
        b"not json",
        b'{"format":2,"paths":[],"files":{}}',
        b'{"format":1,"paths":[""],"files":{"a.py":"x"}}',
        b'{"format":1,"paths":[".."],"files":{}}',
    ],
)
def test_a_blob_that_is_no_manifest_is_damage(blobs, tmp_path, manifest):
    with pytest.raises(Damaged):
        materialise(blobs.put(manifest), blobs, tmp_path / "cache")


def test_a_missing_file_leaves_nothing_behind(blobs, root, tmp_path):
    write(root, "train.py")
    digest = snapshot(root, blobs)
    blobs.condemn(digest_bytes(b"x = 1\n"))
    blobs.purge(digest_bytes(b"x = 1\n"))
    with pytest.raises(NotFound):
        materialise(digest, blobs, tmp_path / "cache")
    assert list((tmp_path / "cache").iterdir()) == []
    with pytest.raises(Damaged):
        materialise("../../etc", blobs, tmp_path / "cache")


def test_a_full_disk_is_one_clear_error_and_leaves_nothing(root, blobs, tmp_path, monkeypatch):
    write(root, "train.py")
    digest = snapshot(root, blobs)

    def full(*_: object) -> None:
        raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr(Path, "write_bytes", full)
    with pytest.raises(DiskFull):
        materialise(digest, blobs, tmp_path / "cache")
    assert list((tmp_path / "cache").iterdir()) == []


def test_refs_name_every_blob_that_is_needed(root, blobs):
    write(root, *OURS)
    write(root, "other.py", text="y = 1\n")
    digest = snapshot(root, blobs)
    assert refs(digest, blobs)[0] == digest
    assert set(refs(digest, blobs)) == {found.digest for found in blobs.list()}


def test_git_names_the_commit_and_whether_anything_differs(root):
    assert git_commit(root) is None
    git(root, "init", "-q")
    assert git_commit(root) is None
    write(root, "train.py")
    git(root, "add", ".")
    git(root, "commit", "-q", "-m", "first")
    clean = git_commit(root)
    assert clean is not None and len(clean) >= 4 and not clean.endswith("+")
    write(root, "new.py")
    assert git_commit(root) == clean + "+"


@pytest.mark.parametrize("sign", ["meta.db", ".gitignore"])  # its rows may lie in PostgreSQL
def test_a_home_inside_the_project_is_no_source(tmp_path, sign):
    (tmp_path / "train.py").write_text("x = 1\n")
    blobs = open_blobs("memory://")
    before = snapshot(tmp_path, blobs)
    copied = tmp_path / "state" / "cache" / "source" / "abc"
    copied.mkdir(parents=True)
    (copied / "train.py").write_text("x = 1\n")
    (tmp_path / "state" / sign).write_text("*\n")
    assert snapshot(tmp_path, blobs) == before
