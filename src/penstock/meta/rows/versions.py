"""Versions of datasets and models, and the aliases that move over them."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Any

from sqlalchemy import func, select, update

from penstock.base.errors import BadInput, Conflict, NotFound
from penstock.base.nearest import did_you_mean
from penstock.meta.rows.events import EventReader, EventWriter
from penstock.meta.rows.session import columns
from penstock.meta.tables import aliases, versions
from penstock.records import Alias, Kind, Reference, Version
from penstock.records.references import check_name


class VersionReader(EventReader):
    def names(self, kind: Kind) -> list[str]:
        """In the order of the alphabet."""
        query = select(versions.c.name).where(versions.c.kind == kind).distinct()
        return sorted(self.texts(query))

    def find_version(self, kind: Kind, name: str, version: int | None = None) -> Version | None:
        query = columns(versions, Version).where(versions.c.kind == kind, versions.c.name == name)
        if version is not None:
            query = query.where(versions.c.version == version)
        return self.one(Version, query.order_by(versions.c.version.desc()).limit(1))

    def get_version(self, kind: Kind, reference: str) -> Version:
        asked = Reference.parse(reference)
        number = asked.version
        if asked.alias is not None:
            alias = self.find_alias(kind, asked.name, asked.alias)
            number = -1 if alias is None else alias.version
        found = self.find_version(kind, asked.name, number)
        if found is None:
            raise self._unknown(kind, asked)
        return found

    def find_produced(self, kind: Kind, producer: str) -> Version | None:
        query = columns(versions, Version).where(
            versions.c.kind == kind, versions.c.producer == producer
        )
        return self.one(Version, query.order_by(versions.c.seq.desc()).limit(1))

    def versions(self, kind: Kind, name: str | None = None, limit: int = 100) -> list[Version]:
        query = columns(versions, Version).where(versions.c.kind == kind)
        if name is not None:
            query = query.where(versions.c.name == name)
        return self.all(Version, query.order_by(versions.c.seq.desc()).limit(limit))

    def find_alias(self, kind: Kind, name: str, alias: str) -> Alias | None:
        where = (aliases.c.kind == kind, aliases.c.name == name, aliases.c.alias == alias)
        return self.one(Alias, columns(aliases, Alias).where(*where))

    def aliases(self, kind: Kind, name: str | None = None) -> list[Alias]:
        query = columns(aliases, Alias).where(aliases.c.kind == kind)
        if name is not None:
            query = query.where(aliases.c.name == name)
        return self.all(Alias, query.order_by(aliases.c.name, aliases.c.alias))

    def _unknown(self, kind: Kind, asked: Reference) -> NotFound:
        names = self.names(kind)
        facts = {"kind": kind, "reference": str(asked)}
        if asked.name not in names:
            fix = did_you_mean(asked.name, names)
            return NotFound(f'there is no {kind} "{asked.name}"', fix, **facts)
        newest = self.find_version(kind, asked.name)
        last = newest.version if newest else 0
        if asked.alias is None:
            what = f'{kind} "{asked.name}" has no version {asked.version}'
            return NotFound(what, f"The newest is {asked.name}@{last}.", **facts)
        known = [alias.alias for alias in self.aliases(kind, asked.name)]
        what = f'{kind} "{asked.name}" has no alias "{asked.alias}"'
        fix = did_you_mean(asked.alias, known) + f" The newest version is {asked.name}@{last}."
        return NotFound(what, fix, **facts)


class VersionWriter(VersionReader, EventWriter):
    def add_version(
        self,
        kind: Kind,
        name: str,
        digest: str,
        producer: str,
        summary: Mapping[str, Any],
        refs: Iterable[str],
    ) -> Version:
        check_name(name, f"{kind} name")
        made = columns(versions, Version).where(
            versions.c.kind == kind, versions.c.name == name, versions.c.producer == producer
        )
        if (found := self.one(Version, made)) is not None:
            return found
        highest = select(func.coalesce(func.max(versions.c.version), 0)).where(
            versions.c.kind == kind, versions.c.name == name
        )
        number = self.execute(highest).scalar_one() + 1
        version = Version(kind, name, number, digest, producer, self.now(), dict(summary))
        row = {field: getattr(version, field) for field in Version.__slots__}
        if not self.insert_new(versions, [row]):
            raise Conflict(
                f"another writer added {version.reference} at the same moment",
                "Run the same command again.",
                reference=version.reference,
            )
        self.keep(f"{kind}/{version.reference}", [digest, *refs], version.summary)
        body = {"version": number, "digest": digest, "producer": producer}
        self.event(f"{kind}/{name}", "version.added", body)
        return version

    def move_alias(
        self,
        kind: Kind,
        name: str,
        alias: str,
        version: int,
        expect: int | None,
        reason: Mapping[str, Any] | None = None,
    ) -> Alias:
        if not _may_be_alias(alias):
            raise BadInput(
                f'"{alias}" cannot be an alias',
                "Use letters, digits, '.', '_' and '-', with a letter among them.",
                alias=alias,
            )
        if self.find_version(kind, name, version) is None:
            raise self._unknown(kind, Reference(name, version))
        before = self.find_alias(kind, name, alias)
        moved = Alias(kind, name, alias, version, (expect or 0) + 1, self.now(), dict(reason or {}))
        if not self._swap(moved, expect):
            raise Conflict(
                f"{name}@{alias} was moved by somebody else",
                "Look where it points now, then decide again.",
                reference=f"{name}@{alias}",
                expected=expect,
                found=None if before is None else before.revision,
            )
        came_from = None if before is None else before.version
        body = {"alias": alias, "from": came_from, "to": version, "reason": moved.reason}
        self.event(f"{kind}/{name}", "alias.moved", body)
        return moved

    def _swap(self, moved: Alias, expect: int | None) -> bool:
        row = {field: getattr(moved, field) for field in Alias.__slots__}
        if expect is None:
            return self.insert_new(aliases, [row]) == 1
        where = (
            aliases.c.kind == moved.kind,
            aliases.c.name == moved.name,
            aliases.c.alias == moved.alias,
            aliases.c.revision == expect,
        )
        return self.execute(update(aliases).where(*where).values(**row)).rowcount == 1


def _may_be_alias(alias: str) -> bool:
    """Whether NAME@alias reads back as this alias, and not as a number or a split."""
    try:
        return Reference.parse(f"x@{alias}") == Reference("x", alias=alias)
    except BadInput:
        return False
