"""Opening: fresh, older, newer, foreign, damaged, and two at once."""

from __future__ import annotations

import os
import sqlite3
import subprocess
import sys
from contextlib import closing
from pathlib import Path

import pytest

from penstock.base.errors import BadInput, Damaged, NetworkHome, NewerSchema
from penstock.meta import open_meta, schema
from penstock.meta.network import file_system, is_network, refuse_network


def _schema_of(path: Path) -> list[tuple[str, list[str]]]:
    """Every table and index with its columns and constraints; their order does not matter."""
    with closing(sqlite3.connect(path)) as raw:
        rows = raw.execute("SELECT name, sql FROM sqlite_master WHERE sql IS NOT NULL")
        return sorted(
            (name, sorted(sql.replace('"', "").replace(",", "").split())) for name, sql in rows
        )


def _migrated(path: Path, target: str = "head") -> None:
    """A database made by the migrations alone."""
    from sqlalchemy import create_engine

    engine = create_engine(f"sqlite:///{path}")
    with engine.begin() as connection:
        schema.migrate(connection, target)
    engine.dispose()


def test_the_tables_and_the_migrations_agree(tmp_path: Path) -> None:
    open_meta(f"sqlite:///{tmp_path}/made.db").close()
    _migrated(tmp_path / "migrated.db")
    assert _schema_of(tmp_path / "made.db") == _schema_of(tmp_path / "migrated.db")


def test_alembic_finds_nothing_left_to_migrate(tmp_path: Path) -> None:
    from alembic.autogenerate import compare_metadata
    from alembic.migration import MigrationContext
    from sqlalchemy import create_engine

    from penstock.meta.tables import metadata

    _migrated(tmp_path / "migrated.db")
    with create_engine(f"sqlite:///{tmp_path}/migrated.db").connect() as connection:
        context = MigrationContext.configure(connection)
        assert compare_metadata(context, metadata) == []


def test_the_head_that_is_compared_is_the_newest_migration() -> None:
    from alembic.config import Config
    from alembic.script import ScriptDirectory

    config = Config()
    config.set_main_option("script_location", "penstock.meta:migrations")
    assert ScriptDirectory.from_config(config).get_heads() == [schema.HEAD]


def test_an_older_schema_is_brought_up(tmp_path: Path) -> None:
    path = tmp_path / "meta.db"
    with closing(sqlite3.connect(path)) as raw:  # before the first migration
        raw.execute("CREATE TABLE alembic_version (version_num VARCHAR(32) NOT NULL)")
    store = open_meta(f"sqlite:///{path}")
    with store.write() as writer:
        writer.event("x", "y")
    store.close()
    assert schema.found_in(path) == schema.HEAD


def test_checkpoints_of_a_home_without_pins_are_there_and_can_be_pinned(tmp_path: Path) -> None:
    path = tmp_path / "meta.db"
    _migrated(path, "0002")
    with closing(sqlite3.connect(path)) as raw:
        raw.execute(
            "INSERT INTO runs VALUES (1, 'run-1', 'base', 'train', 'finished', '{}', '', '', '{}', "
            "0, 3, 1.0, NULL, NULL, '{}')"
        )
        raw.execute("INSERT INTO checkpoints VALUES ('run-1', 3, 1, 'sha256:0', 1.0, 9, '{}')")
        raw.commit()
    store = open_meta(f"sqlite:///{path}")
    with store.write() as writer:
        assert [row.pinned for row in writer.checkpoints("run-1")] == [None]
        writer.pin_checkpoint("run-1", 3)
        assert [row.pinned for row in writer.checkpoints("run-1")] == [""]
    store.close()
    assert schema.found_in(path) == schema.HEAD


def test_a_newer_schema_is_refused_and_untouched(tmp_path: Path) -> None:
    path = tmp_path / "meta.db"
    open_meta(f"sqlite:///{path}").close()
    with closing(sqlite3.connect(path)) as raw:
        raw.execute("UPDATE alembic_version SET version_num = '0999'")
        raw.execute("CREATE TABLE from_the_future (x)")
        raw.commit()
    before = path.read_bytes()
    with pytest.raises(NewerSchema, match="0999"):
        open_meta(f"sqlite:///{path}")
    assert path.read_bytes() == before
    log = path.with_name("meta.db-wal")
    assert not log.exists() or log.stat().st_size == 0


def test_a_newer_schema_whose_writer_was_killed_is_untouched_too(tmp_path: Path) -> None:
    """Its log still holds what the file does not; folding it in would be a change."""
    path = tmp_path / "meta.db"
    open_meta(f"sqlite:///{path}").close()
    child = os.fork()
    if child == 0:
        raw = sqlite3.connect(path)
        raw.execute("UPDATE alembic_version SET version_num = '0999'")
        raw.commit()
        os.kill(os.getpid(), 9)
    os.waitpid(child, 0)
    files = [path, path.with_name("meta.db-wal")]
    before = [file.read_bytes() for file in files]
    with pytest.raises(NewerSchema):
        open_meta(f"sqlite:///{path}")
    assert [file.read_bytes() for file in files] == before


def test_a_database_of_something_else_is_refused_and_untouched(tmp_path: Path) -> None:
    path = tmp_path / "meta.db"
    with closing(sqlite3.connect(path)) as raw:
        raw.execute("CREATE TABLE photographs (x)")
    before = path.read_bytes()
    with pytest.raises(BadInput, match="not Penstock's"):
        open_meta(f"sqlite:///{path}")
    assert path.read_bytes() == before


def test_a_file_that_is_no_database_is_damaged(tmp_path: Path) -> None:
    path = tmp_path / "meta.db"
    path.write_bytes(b"this is not SQLite" * 100)
    with pytest.raises(Damaged):
        open_meta(f"sqlite:///{path}")
    assert path.read_bytes() == b"this is not SQLite" * 100


@pytest.mark.faults
def test_many_processes_open_a_fresh_home_at_once(tmp_path: Path) -> None:
    script = f"""
import sys
sys.stdin.readline()
from penstock.meta import open_meta
store = open_meta("sqlite:///{tmp_path}/home/meta.db")
with store.write() as writer:
    writer.event("x", "opened")
"""
    openers = [
        subprocess.Popen([sys.executable, "-c", script], stdin=subprocess.PIPE) for _ in range(4)
    ]
    for opener in openers:
        opener.communicate(b"go\n")
    assert [opener.returncode for opener in openers] == [0] * 4
    store = open_meta(f"sqlite:///{tmp_path}/home/meta.db")
    with store.read() as reader:
        assert reader.last_event() == 4
    store.close()


@pytest.mark.faults
def test_an_opener_killed_at_any_line_leaves_a_home_that_opens(tmp_path: Path, in_child) -> None:  # type: ignore[no-untyped-def]
    for line in (*range(1, 120, 7), 200, 400):
        url = f"sqlite:///{tmp_path}/{line}/meta.db"
        assert in_child(lambda url=url: open_meta(url), die_at=line) in (0, 9)
        store = open_meta(url)
        with store.write() as writer:
            assert writer.event("x", "y") == 1
        store.close()


def test_opening_what_is_up_to_date_does_not_import_alembic(tmp_path: Path) -> None:
    script = f"""
import sys
from penstock.meta import open_meta
assert "sqlalchemy" not in sys.modules
open_meta("sqlite:///{tmp_path}/meta.db").close()
assert "alembic" not in sys.modules
"""
    for _ in range(2):
        subprocess.run([sys.executable, "-c", script], check=True)


def test_a_closed_store_leaves_one_file(tmp_path: Path) -> None:
    store = open_meta(f"sqlite:///{tmp_path}/meta.db")
    with store.write() as writer:
        writer.event("x", "y")
    store.close()
    assert [entry.name for entry in tmp_path.iterdir()] == ["meta.db"]


# network file systems

MOUNTS = r"""
22 27 0:21 / /proc rw,relatime - proc proc rw
27 1 254:0 / / rw,relatime shared:1 - ext4 /dev/vda rw
30 27 0:40 / /mnt/team rw,relatime shared:5 - nfs4 server:/team rw,vers=4.2
31 30 254:1 / /mnt/team/local rw - xfs /dev/vdb rw
32 27 0:41 / /mnt/with\040space rw - fuse.sshfs me@host:/ rw
33 27 0:42 / /mnt/twice rw - nfs server:/x rw
34 27 0:43 / /mnt/twice rw - tmpfs tmpfs rw
35 27 0:44 / /mnt/win rw - cifs //server/share rw
not a line of mountinfo
"""


@pytest.mark.parametrize(
    ("path", "kind", "point"),
    [
        ("/home/me/.penstock", "ext4", "/"),
        ("/mnt/team/project/.penstock", "nfs4", "/mnt/team"),
        ("/mnt/teamwork/.penstock", "ext4", "/"),
        ("/mnt/team/local/x", "xfs", "/mnt/team/local"),
        ("/mnt/with space/x", "fuse.sshfs", "/mnt/with space"),
        ("/mnt/twice/x", "tmpfs", "/mnt/twice"),
    ],
)
def test_the_mount_of_a_path_is_found(path: str, kind: str, point: str) -> None:
    assert file_system(Path(path), MOUNTS) == (kind, point)


def test_a_path_that_no_mount_covers_has_no_file_system() -> None:
    assert file_system(Path("/x"), "") == ("", "")


@pytest.mark.parametrize(
    "kind",
    [
        "nfs",
        "nfs4",
        "cifs",
        "smb3",
        "smbfs",
        "9p",
        "fuse.sshfs",
        "lustre",
        "ceph",
        "fuse.s3fs",
        "gpfs",
        "afs",
    ],
)
def test_network_file_systems_are_known(kind: str) -> None:
    assert is_network(kind)


@pytest.mark.parametrize(
    "kind", ["ext4", "xfs", "btrfs", "zfs", "tmpfs", "overlay", "fuse.fuse-overlayfs", "apfs", ""]
)
def test_local_file_systems_are_left_alone(kind: str) -> None:
    assert not is_network(kind)


def test_a_home_on_a_network_file_system_is_refused_with_the_remedy() -> None:
    with pytest.raises(NetworkHome) as caught:
        refuse_network(Path("/mnt/team/project/.penstock/meta.db"), MOUNTS)
    assert "PostgreSQL" in caught.value.fix
    assert caught.value.facts["file_system"] == "nfs4"
    refuse_network(Path("/home/me/.penstock/meta.db"), MOUNTS)
