"""What is known of a preparation: made before, by whom, whole or not; and why it has to run."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

from penstock.base.errors import Damaged, NewerSchema, NotFound
from penstock.data.manifest import Lineage, Manifest, read_manifest
from penstock.data.preparation.commit import commit
from penstock.jobs.source import difference
from penstock.records import Version

if TYPE_CHECKING:
    from penstock.blobs import Blobs
    from penstock.jobs.stores import Stores

_LOOKED_AT = 20  # earlier versions of the name that are compared
_TOLD = 3  # differences in one sentence


@dataclass(frozen=True, slots=True)
class Prepared:
    """version  the newest of its name
    reused   whether nothing was run
    why      one sentence that says so, and the reason
    notes    what else to tell, a line each: bad records, unstable functions, what was kept
    """

    version: Version
    reused: bool
    why: str
    notes: tuple[str, ...] = ()

    @property
    def reference(self) -> str:
        """NAME@NUMBER."""
        return self.version.reference


@dataclass(frozen=True, slots=True)
class Request:
    """What was asked for, checked; `content` names all that the rows depend on.

    shares   split -> wanted part; {} where something else decides
    rule     how rows are split, as JSON
    inputs   lines that tell how inputs differ from those of an earlier manifest
    sources  references of the dataset versions that are read
    """

    name: str
    shares: dict[str, float]
    rule: dict[str, Any]
    lineage: Lineage
    options: dict[str, Any] = field(default_factory=dict)
    inputs: Callable[[Manifest], list[str]] | None = None
    sources: tuple[str, ...] = ()

    @property
    def content(self) -> str:
        return self.lineage.content


@dataclass(frozen=True, slots=True)
class Past:
    """newest   of the name, with its manifest where that can be read
    known    the manifest of the same content, of this name or another
    damage   what of `known` is not there any more
    """

    newest: Version | None
    manifest: Manifest | None
    known: Manifest | None = None
    known_as: str = ""
    damage: str = ""

    @property
    def whole(self) -> bool:
        return self.known is not None and not self.damage

    @classmethod
    def of(cls, stores: Stores, asked: Request) -> Past:
        with stores.meta.read() as meta:
            versions = meta.versions("dataset", asked.name, limit=_LOOKED_AT)
            memory = meta.recall(asked.content)
        newest = versions[0] if versions else None
        manifest = _readable(stores.blobs, newest.digest) if newest else None
        candidates = [(each.digest, each.reference) for each in versions]
        candidates += [(memory["manifest"], memory["reference"])] if memory else []
        for digest, reference in candidates:
            known = _readable(stores.blobs, digest)
            if known is not None and known.lineage.content == asked.content:
                return cls(newest, manifest, known, reference, _damage(stores.blobs, known))
        return cls(newest, manifest)


def _readable(blobs: Blobs, digest: str) -> Manifest | None:
    try:
        return read_manifest(blobs, digest)
    except (NotFound, Damaged, NewerSchema):
        return None


def _damage(blobs: Blobs, manifest: Manifest) -> str:
    """A shard that is gone; "" when all are there. Bytes are compared when they are read."""
    for shard in manifest.shards:
        found = blobs.stat(shard.digest)
        if found is None or found.size != shard.bytes:
            return f"shard {shard.number} of split {shard.split}"
    return ""


def reuse(stores: Stores, asked: Request, past: Past, producer: str | None) -> Prepared:
    known = past.known
    if known is None:
        raise AssertionError("only what is known can be reused")
    whose = "steps" if asked.options else "function"
    unchanged = f"because {whose}, parameters and inputs are unchanged"
    if past.newest is not None and past.newest.digest == known.digest:
        return Prepared(past.newest, True, f"reused {past.known_as}, {unchanged}")
    # Something else is the newest of this name; a bare name must mean what was asked for now.
    after = past.newest.version if past.newest else 0
    version = commit(
        stores, asked, known, producer or f"prepare/{asked.name}/{asked.content}/after-{after}"
    )[0]
    why = f"reused the rows of {past.known_as} as {version.reference}, {unchanged}"
    return Prepared(version, True, why)


def reason(asked: Request, past: Past, fresh: bool) -> str:
    """Why the function has to run, as the end of a sentence."""
    if past.newest is None:
        return f"{asked.name} has no version yet"
    if past.damage:
        return f"{past.known_as} has lost {past.damage}"
    if fresh:
        return "fresh=True asks for it"
    if past.manifest is None:
        return f"the manifest of {past.newest.reference} cannot be read"
    changes = _changes(past.manifest, asked)
    more = f" and {len(changes) - _TOLD} more" if len(changes) > _TOLD else ""
    return ", ".join(changes[:_TOLD]) + more


def _changes(old: Manifest, asked: Request) -> list[str]:
    new, was = asked.lineage, old.lineage
    lines = asked.inputs(old) if asked.inputs is not None else []
    if was.function != new.function:
        lines.append(f"the function is {new.function}, not {was.function}")
    else:
        lines += difference(was.parts, new.parts)
    for name in sorted({*was.params, *new.params}):
        before, after = was.params.get(name), new.params.get(name)
        if before != after:
            lines.append(f"parameter {name} changed from {before!r} to {after!r}")
    if was.key != new.key:
        lines.append(f"the key changed from {was.key} to {new.key}")
    shares = {name: each.share for name, each in old.splits.items()}
    rule = old.notes.get("rule", {"kind": "key", "column": ""})
    same = all(rule.get(each) == asked.rule[each] for each in rule)
    if not same or (asked.shares and shares != asked.shares):
        lines.append("the splits changed")
    before, after = old.notes.get("options", {}), asked.options
    for name in sorted({*before, *after}):
        if before.get(name) != after.get(name):
            lines.append(f"{name} changed from {before.get(name)!r} to {after.get(name)!r}")
    return lines or ["the code of the key changed"]
