"""Tags of versions, what names a version, and the end of a version that nothing names."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

from sqlalchemy import Column, ColumnElement, Text, delete, select, type_coerce

from penstock.base.errors import BadInput, Refused
from penstock.meta.rows.blobs import MEMORY, BlobWriter
from penstock.meta.rows.session import columns
from penstock.meta.rows.versions import VersionReader, VersionWriter
from penstock.meta.tables import deployments, evaluations, refs, runs, tags, versions
from penstock.records import Kind, Reference, Tag, Version

_LONGEST = 100  # characters of a tag


class LabelReader(VersionReader):
    def tags(self, kind: Kind, name: str | None = None) -> list[Tag]:
        query = columns(tags, Tag).where(tags.c.kind == kind)
        if name is not None:
            query = query.where(tags.c.name == name)
        return self.all(Tag, query.order_by(tags.c.name, tags.c.version, tags.c.tag))

    def uses(self, kind: Kind, name: str) -> dict[int, list[str]]:
        found: dict[int, list[str]] = {}
        for owner, text in self._named(kind, name):
            wanted = _parsed(text)
            if wanted is None or wanted.name != name or wanted.version is None:
                continue
            owners = found.setdefault(wanted.version, [])
            if owner not in owners:
                owners.append(owner)
        return found

    def _named(self, kind: Kind, name: str) -> Iterator[tuple[str, Any]]:
        """(who, reference) of all that may name a version of `name`."""
        if kind == "model":
            for row in self._mentions(evaluations.c.id, evaluations.c.model, name):
                yield f"evaluation/{row[0]}", row[1]
            for row in self._mentions(deployments.c.name, deployments.c.resolved, name):
                yield f"deployment/{row[0]}", row[1]
            return
        for row in self._mentions(runs.c.id, runs.c.data, name):
            yield from ((f"run/{row[0]}", text) for text in _texts(row[1]))
        for row in self._mentions(evaluations.c.id, evaluations.c.dataset, name):
            yield f"evaluation/{row[0]}", row[1]
        made = select(versions.c.name, versions.c.version, versions.c.summary).where(
            versions.c.kind == kind, _holds_name(versions.c.summary, name)
        )
        for row in self.execute(made):
            owner = f"{kind}/{row.name}@{row.version}"
            yield from ((owner, text) for text in row.summary.get("sources", []))

    def _mentions(self, key: Column[Any], column: Column[Any], name: str) -> Any:
        """Rows whose column holds NAME@ somewhere: few of many are read."""
        return self.execute(select(key, column).where(_holds_name(column, name))).all()


class LabelWriter(VersionWriter, BlobWriter, LabelReader):
    def tag(self, kind: Kind, name: str, version: int, tag: str) -> Tag:
        if not tag.strip() or tag != tag.strip() or not tag.isprintable() or len(tag) > _LONGEST:
            raise BadInput(
                f"{tag!r} cannot be a tag",
                f"A tag is one line of at most {_LONGEST} characters, without blanks at its ends.",
                tag=tag,
            )
        self._must_be(kind, name, version)
        made = Tag(kind, name, version, tag, self.now())
        row = {field: getattr(made, field) for field in Tag.__slots__}
        if self.insert_new(tags, [row]):
            self.event(f"{kind}/{name}", "version.tagged", {"version": version, "tag": tag})
            return made
        return next(t for t in self.tags(kind, name) if (t.version, t.tag) == (version, tag))

    def untag(self, kind: Kind, name: str, version: int, tag: str) -> bool:
        self._must_be(kind, name, version)
        of_version = (tags.c.kind == kind, tags.c.name == name, tags.c.version == version)
        gone = self.execute(delete(tags).where(*of_version, tags.c.tag == tag)).rowcount > 0
        if gone:
            self.event(f"{kind}/{name}", "version.untagged", {"version": version, "tag": tag})
        return gone

    def drop_version(self, kind: Kind, name: str, version: int) -> Version:
        found = self._must_be(kind, name, version)
        if reasons := self._holds(found):
            raise Refused(
                f"{found.reference} stays: {', '.join(reasons)}",
                "Move the alias or take the tag away first; what a run, evaluation or dataset "
                "names stays as long as they do.",
                reference=found.reference,
                reasons=reasons,
            )
        self._forget(found)
        where = (versions.c.kind == kind, versions.c.name == name, versions.c.version == version)
        self.execute(delete(versions).where(*where))
        self.let_go(f"{kind}/{found.reference}")
        body = {"version": version, "digest": found.digest}
        self.event(f"{kind}/{name}", "version.dropped", body)
        return found

    def _holds(self, version: Version) -> list[str]:
        """Why a version has to stay."""
        kind, name, number = version.kind, version.name, version.version
        reasons = []
        newest = self.find_version(kind, name)
        if newest is not None and newest.version == number:
            reasons.append("it is the newest")
        reasons += [f"alias {a.alias}" for a in self.aliases(kind, name) if a.version == number]
        reasons += [f'tag "{t.tag}"' for t in self.tags(kind, name) if t.version == number]
        return reasons + self.uses(kind, name).get(number, [])

    def _forget(self, version: Version) -> None:
        """What calls remember of blobs that nothing but this version and memories refers to."""
        owner = f"{version.kind}/{version.reference}"
        own, other = refs.alias(), refs.alias()
        elsewhere = select(other.c.digest).where(
            other.c.digest == own.c.digest,
            other.c.owner != owner,
            other.c.owner.not_like(f"{MEMORY}%"),
        )
        lonely = select(own.c.digest).where(own.c.owner == owner, ~elsewhere.exists())
        owners = select(refs.c.owner).where(
            refs.c.owner.like(f"{MEMORY}%"), refs.c.digest.in_(lonely)
        )
        self.forget(each.removeprefix(MEMORY) for each in self.texts(owners.distinct()))

    def _must_be(self, kind: Kind, name: str, version: int) -> Version:
        found = self.find_version(kind, name, version)
        if found is None:
            raise self._unknown(kind, Reference(name, version))
        return found


def _parsed(text: Any) -> Reference | None:
    try:
        return Reference.parse(str(text))
    except BadInput:
        return None


def _texts(data: Any) -> list[Any]:
    return list(data.values()) if isinstance(data, dict) else list(data or [])


def _holds_name(column: Column[Any], name: str) -> ColumnElement[bool]:
    """Whether the text of a column holds NAME@."""
    for special in ("\\", "%", "_"):
        name = name.replace(special, "\\" + special)
    return type_coerce(column, Text).like(f"%{name}@%", escape="\\")
