"""The folder of what torch.compile has compiled keeps to its limit, and takes what is old first."""

import os
import time

from penstock.base.layout import Layout
from penstock.base.settings import Settings
from penstock.home.local import LocalHome
from penstock.jobs import compiled

BLOCK = 4096


def made(folder, **ages):
    """A file of one block for each, used so many hours ago."""
    for name, hours in ages.items():
        path = folder / "inductor" / name[:1] / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(b"x" * BLOCK)
        then = time.time() - 3600 * hours
        os.utime(path, (then, then))


def left(folder):
    return sorted(path.name for path in folder.rglob("*") if path.is_file())


def test_what_was_used_longest_ago_goes_first(tmp_path):
    made(tmp_path, a=5, b=2, c=9, d=3)
    assert compiled.trim(tmp_path, 2 * BLOCK, dry_run=True) == 2 * BLOCK
    assert left(tmp_path) == ["a", "b", "c", "d"]
    assert compiled.trim(tmp_path, 2 * BLOCK) == 2 * BLOCK
    assert left(tmp_path) == ["b", "d"]
    assert compiled.trim(tmp_path, 2 * BLOCK) == 0


def test_what_may_be_half_made_stays(tmp_path):
    made(tmp_path, old=2, new=0)
    assert compiled.trim(tmp_path, 0) == BLOCK
    assert left(tmp_path) == ["new"]
    assert compiled.trim(tmp_path / "nowhere", 0) == 0


def test_garbage_collection_trims_it(tmp_path):
    home = LocalHome(Settings(home=tmp_path, compiled_bytes=BLOCK))
    made(Layout(tmp_path).compiled, old=5, newer=2)
    assert home.collect_garbage(apply=False)["compiled_bytes"] == BLOCK
    assert home.collect_garbage()["compiled_bytes"] == BLOCK
    assert left(Layout(tmp_path).compiled) == ["newer"]


def test_the_folder_is_private_and_what_the_user_said_stays(tmp_path, monkeypatch):
    monkeypatch.delenv("TORCHINDUCTOR_CACHE_DIR", raising=False)
    monkeypatch.setenv("TRITON_CACHE_DIR", "/theirs")
    compiled.use(Layout(tmp_path))
    found = Layout(tmp_path).compiled
    assert os.environ["TORCHINDUCTOR_CACHE_DIR"] == str(found / "inductor")
    assert os.environ["TRITON_CACHE_DIR"] == "/theirs"
    assert found.stat().st_mode & 0o777 == 0o700
