"""The tables of the meta store. A change here needs a migration; a test compares the two.

Times are seconds since 1970 on the store's clock. `seq` columns give the order of insertion.
"""

from __future__ import annotations

from sqlalchemy import (
    BigInteger,
    Boolean,
    Column,
    Double,
    ForeignKey,
    ForeignKeyConstraint,
    Index,
    Integer,
    MetaData,
    PrimaryKeyConstraint,
    String,
    Table,
    UniqueConstraint,
)
from sqlalchemy import Text as _Text

from penstock.meta.columns import Json

metadata = MetaData(
    naming_convention={
        "ix": "ix_%(table_name)s_%(column_0_N_name)s",
        "uq": "uq_%(table_name)s_%(column_0_N_name)s",
        "fk": "fk_%(table_name)s_%(column_0_N_name)s",
        "pk": "pk_%(table_name)s",
    }
)
Text = _Text().with_variant(_Text(collation="C"), "postgresql")  # one order everywhere
_Serial = BigInteger().with_variant(Integer(), "sqlite")  # SQLite counts only INTEGER keys

runs = Table(
    "runs",
    metadata,
    Column("seq", _Serial, primary_key=True),
    Column("id", Text, nullable=False, unique=True),
    Column("name", Text, nullable=False),
    Column("work", Text, nullable=False),
    Column("state", Text, nullable=False),
    Column("spec", Json, nullable=False),
    Column("code", Text, nullable=False),
    Column("source", Text, nullable=False),
    Column("data", Json, nullable=False),
    Column("detached", Boolean, nullable=False),
    Column("step", BigInteger, nullable=False),
    Column("created_at", Double, nullable=False),
    Column("ended_at", Double),
    Column("error", Json),
    Column("result", Json, nullable=False),
    Index(None, "name"),
    Index(None, "state"),
)

attempts = Table(
    "attempts",
    metadata,
    Column("run_id", Text, ForeignKey("runs.id"), primary_key=True),
    Column("number", Integer, primary_key=True, autoincrement=False),
    Column("generation", BigInteger, nullable=False),
    Column("started_at", Double, nullable=False),
    Column("from_step", BigInteger, nullable=False),
    Column("ended_at", Double),
    Column("to_step", BigInteger),
    Column("cause", Text),
    Column("detail", Json, nullable=False),
)

checkpoints = Table(
    "checkpoints",
    metadata,
    Column("run_id", Text, ForeignKey("runs.id"), primary_key=True),
    Column("step", BigInteger, primary_key=True, autoincrement=False),
    Column("generation", BigInteger, primary_key=True, autoincrement=False),
    Column("digest", Text, nullable=False),
    Column("created_at", Double, nullable=False),
    Column("bytes", BigInteger, nullable=False),
    Column("metrics", Json, nullable=False),
)

bests = Table(  # which step is kept for a metric
    "bests",
    metadata,
    Column("run_id", Text, ForeignKey("runs.id"), primary_key=True),
    Column("metric", Text, primary_key=True),
    Column("step", BigInteger, nullable=False),
)

pinned_checkpoints = Table(  # which steps stay until they are unpinned
    "pinned_checkpoints",
    metadata,
    Column("run_id", Text, ForeignKey("runs.id"), primary_key=True),
    Column("step", BigInteger, primary_key=True, autoincrement=False),
    Column("note", Text, nullable=False),
    Column("pinned_at", Double, nullable=False),
)

units = Table(
    "units",
    metadata,
    Column("seq", _Serial, primary_key=True),
    Column("run_id", Text, ForeignKey("runs.id"), nullable=False),
    Column("key", Text, nullable=False),
    Column("state", Text, nullable=False),
    Column("payload", Json, nullable=False),
    Column("result", Json),
    Column("tries", Integer, nullable=False),
    Column("generation", BigInteger, nullable=False),
    UniqueConstraint("run_id", "key"),
    Index(None, "run_id", "state"),
)

versions = Table(
    "versions",
    metadata,
    Column("seq", _Serial, primary_key=True),
    Column("kind", Text, nullable=False),
    Column("name", Text, nullable=False),
    Column("version", Integer, nullable=False),
    Column("digest", Text, nullable=False),
    Column("producer", Text, nullable=False),
    Column("created_at", Double, nullable=False),
    Column("summary", Json, nullable=False),
    UniqueConstraint("kind", "name", "version"),
    UniqueConstraint("kind", "name", "producer"),
    Index(None, "kind", "producer"),
)

aliases = Table(
    "aliases",
    metadata,
    Column("kind", Text, primary_key=True),
    Column("name", Text, primary_key=True),
    Column("alias", Text, primary_key=True),
    Column("version", Integer, nullable=False),
    Column("revision", Integer, nullable=False),
    Column("moved_at", Double, nullable=False),
    Column("reason", Json, nullable=False),
    ForeignKeyConstraint(
        ["kind", "name", "version"], ["versions.kind", "versions.name", "versions.version"]
    ),
)

tags = Table(  # free labels of versions
    "tags",
    metadata,
    Column("kind", Text, primary_key=True),
    Column("name", Text, primary_key=True),
    Column("version", Integer, primary_key=True, autoincrement=False),
    Column("tag", Text, primary_key=True),
    Column("made_at", Double, nullable=False),
    ForeignKeyConstraint(
        ["kind", "name", "version"], ["versions.kind", "versions.name", "versions.version"]
    ),
)

evaluations = Table(
    "evaluations",
    metadata,
    Column("seq", _Serial, primary_key=True),
    Column("id", Text, nullable=False, unique=True),
    Column("key", Text, nullable=False, unique=True),
    Column("suite", Text, nullable=False),
    Column("model", Text, nullable=False),
    Column("dataset", Text, nullable=False),
    Column("digest", Text, nullable=False),
    Column("passed", Boolean, nullable=False),
    Column("created_at", Double, nullable=False),
    Column("summary", Json, nullable=False),
    Index(None, "model"),
)

deployments = Table(
    "deployments",
    metadata,
    Column("name", Text, primary_key=True),
    Column("model", Text, nullable=False),
    Column("resolved", Text, nullable=False),
    Column("state", Text, nullable=False),
    Column("wanted", Text, nullable=False),
    Column("revision", Integer, nullable=False),
    Column("created_at", Double, nullable=False),
    Column("updated_at", Double, nullable=False),
    Column("address", Text),
    Column("detail", Json, nullable=False),
)

leases = Table(  # a free lease has an empty holder; its generation stays for ever
    "leases",
    metadata,
    Column("key", Text, primary_key=True),
    Column("holder", Text, nullable=False),
    Column("generation", BigInteger, nullable=False),
    Column("expires_at", Double, nullable=False),
)

memories = Table(
    "memories",
    metadata,
    Column("key", Text, primary_key=True),
    Column("kind", Text, nullable=False),
    Column("value", Json, nullable=False),
    Column("created_at", Double, nullable=False),
)

refs = Table(  # which blobs a row needs; owner is "run/ID", "checkpoint/RUN/STEP/GENERATION", …
    "refs",
    metadata,
    Column("owner", Text, primary_key=True),
    Column("digest", Text, primary_key=True),
    Index(None, "digest"),
)

claims = Table(
    "claims",
    metadata,
    Column("run_id", Text, ForeignKey(runs.c.id), primary_key=True),
    Column("host", Text, nullable=False),
    Column("ticket", BigInteger, nullable=False),
    Column("since", Double, nullable=False),
    Column("wants", Json, nullable=False),
    Column("holds", Json, nullable=False),
)

pins = Table(
    "pins",
    metadata,
    Column("id", Text, primary_key=True),
    Column("holder", Text, nullable=False),
    Column("made_at", Double, nullable=False),
)

events = Table(
    "events",
    metadata,
    Column("seq", _Serial, primary_key=True, autoincrement=True),
    Column("at", Double, nullable=False),
    Column("subject", Text, nullable=False),
    Column("kind", Text, nullable=False),
    Column("body", Json, nullable=False),
    Index(None, "subject", "seq"),
    sqlite_autoincrement=True,  # a cursor is never given twice, even if the newest rows go
)

# Alembic's own table, as Alembic would make it; kept apart so that it is not compared with it.
version_table = Table(
    "alembic_version",
    MetaData(),
    Column("version_num", String(32), nullable=False),
    PrimaryKeyConstraint("version_num", name="alembic_version_pkc"),
)
