"""`prepare`: a function's rows as a new dataset version, or the version that it already made.

Remembered by content: code identity, parameters, key and splits. While it writes it holds a pin,
so that garbage collection leaves its shards alone; the version, its references, its memory and its
event are one transaction. Two processes that prepare the same content give one version: whoever
commits second finds the first's by its producer.
"""

from __future__ import annotations

import functools
import inspect
import traceback
from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from penstock.base.errors import (
    BadInput,
    CannotTravel,
    Damaged,
    NewerSchema,
    NotFound,
    PenstockError,
    UserCodeFailed,
)
from penstock.base.hashing import canonical_json, digest_json
from penstock.base.ids import new_id
from penstock.base.process import Identity
from penstock.data.keys import KeyFunction, check_splits
from penstock.data.manifest import Lineage, Manifest, read_manifest, write_manifest
from penstock.data.shards import write_shards
from penstock.jobs.source import difference, git_commit, identity, locate
from penstock.records import Version
from penstock.records.references import check_name

if TYPE_CHECKING:
    from penstock.blobs import Blobs
    from penstock.jobs.stores import Stores

CODE = 1  # raised when the same function would give another version
_LOOKED_AT = 20  # earlier versions of the name that are compared
_TOLD = 3  # differences in one sentence


@dataclass(frozen=True, slots=True)
class Prepared:
    """version  the newest of its name
    reused   whether the function was not run
    why      one sentence that says so, and the reason
    """

    version: Version
    reused: bool
    why: str

    @property
    def reference(self) -> str:
        """NAME@NUMBER."""
        return self.version.reference


@dataclass(frozen=True, slots=True)
class _Request:
    """What was asked for, checked; `content` names all that the rows depend on."""

    name: str
    function: Callable[..., Any]
    params: dict[str, Any]
    key: str | KeyFunction | None
    splits: dict[str, float]
    lineage: Lineage

    @property
    def content(self) -> str:
        return self.lineage.content


def prepare(
    stores: Stores,
    name: str,
    function: Callable[..., Any],
    *,
    key: str | KeyFunction | None = None,
    splits: Mapping[str, float] | None = None,
    params: Mapping[str, Any] | None = None,
    fresh: bool = False,
    producer: str | None = None,
) -> Prepared:
    """Make a version of dataset `name`, or find the one that the same call made.

    function  called with `params` in this process; gives rows (see `rows.py`)
    key       column that names a sample, or a function of a row; default: the column "key" where
              there is one, else a hash of the row's content
    splits    name -> share, adding up to 1; default: train 0.7, validation 0.1, test 0.2
    params    JSON-able
    fresh     run it though it is known
    producer  idempotency key of the caller, e.g. "run/ID"; the same one never makes two versions

    Raises BadInput, UserCodeFailed, DiskFull, ReadOnly, Unavailable; nothing is published then.
    """
    asked = _request(name, function, key, splits, params)
    if producer is not None:
        with stores.meta.read() as meta:
            made = meta.find_produced("dataset", producer)
        if made is not None:
            return Prepared(made, True, f"reused {made.reference}, because {producer} made it")
    past = _Past.of(stores, asked)
    if past.whole and not fresh:
        return _reuse(stores, asked, past, producer)
    return _run(stores, asked, past, fresh, producer)


# asking


def _request(
    name: str,
    function: Callable[..., Any],
    key: str | KeyFunction | None,
    splits: Mapping[str, float] | None,
    params: Mapping[str, Any] | None,
) -> _Request:
    check_name(name, "dataset name")
    if not callable(function):
        raise BadInput(
            f"prepare was given a {type(function).__name__}, not a function",
            "Pass the function itself, without calling it: ps.prepare(name, make_rows).",
        )
    shares = check_splits(splits)
    values = _params(function, params)
    code = identity(function)
    key_code = identity(key).digest if callable(key) else key
    told_key = _entry(key)[0] if callable(key) else key or "content"
    entry, root = _entry(function)
    content = digest_json(
        {
            "what": "dataset",
            "format": CODE,
            "code": code.digest,
            "params": values,
            "key": [callable(key), key_code],
            "splits": [[split, share] for split, share in shares.items()],
        }
    )
    lineage = Lineage(
        function=entry,
        code=code.digest,
        content=content,
        parts=code.parts,
        params=values,
        key=told_key,
        git=git_commit(root),
    )
    return _Request(name, function, values, key, shares, lineage)


def _params(function: Callable[..., Any], params: Mapping[str, Any] | None) -> dict[str, Any]:
    values = dict(params or {})
    try:
        canonical_json(values)
    except (TypeError, ValueError) as error:
        raise BadInput(
            f"the parameters cannot be kept: {error}",
            "Parameters are numbers, text, lists and dicts with text as keys: what JSON holds.",
        ) from None
    try:
        inspect.signature(function).bind(**values)
    except TypeError as error:
        raise BadInput(
            f"{_entry(function)[0]} cannot be called with params={values}: {error}",
            "Pass params={…} with a value for each argument that has no default.",
        ) from None
    except ValueError:  # a builtin without a signature
        return values
    return values


def _entry(function: Callable[..., Any]) -> tuple[str, Path]:
    """ "module:qualname" and the project's folder; also of what runs in this process only."""
    try:
        found = locate(function)
    except CannotTravel:
        plain = function
        while isinstance(plain, functools.partial):
            plain = plain.func
        name = getattr(plain, "__qualname__", type(plain).__name__)
        return f"{getattr(plain, '__module__', '?')}:{name}", Path.cwd()
    return found.text, found.root


# remembering


@dataclass(frozen=True, slots=True)
class _Past:
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
    def of(cls, stores: Stores, asked: _Request) -> _Past:
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


def _reuse(stores: Stores, asked: _Request, past: _Past, producer: str | None) -> Prepared:
    known = past.known
    if known is None:
        raise AssertionError("only what is known can be reused")
    unchanged = "because function, parameters and inputs are unchanged"
    if past.newest is not None and past.newest.digest == known.digest:
        return Prepared(past.newest, True, f"reused {past.known_as}, {unchanged}")
    # Something else is the newest of this name; a bare name must mean what was asked for now.
    after = past.newest.version if past.newest else 0
    version = _commit(
        stores, asked, known, producer or f"prepare/{asked.name}/{asked.content}/after-{after}"
    )[0]
    why = f"reused the rows of {past.known_as} as {version.reference}, {unchanged}"
    return Prepared(version, True, why)


def _reason(asked: _Request, past: _Past, fresh: bool) -> str:
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


def _changes(old: Manifest, asked: _Request) -> list[str]:
    new, was = asked.lineage, old.lineage
    lines = []
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
    if {name: each.share for name, each in old.splits.items()} != asked.splits:
        lines.append("the splits changed")
    return lines or ["the code of the key changed"]


# running


def _run(
    stores: Stores, asked: _Request, past: _Past, fresh: bool, producer: str | None
) -> Prepared:
    reason = _reason(asked, past, fresh)
    with stores.meta.write() as meta:
        pin = meta.pin(str(Identity.mine()))
    try:
        manifest = _write(stores.blobs, asked)
        if past.newest is not None and past.newest.digest == manifest.digest:
            same = f"; the rows are those of {past.newest.reference}"
            return Prepared(past.newest, False, f"running, because {reason}{same}")
        again = f"/{new_id()}" if fresh or past.damage else ""
        version, new = _commit(
            stores, asked, manifest, producer or f"prepare/{asked.name}/{asked.content}{again}"
        )
    finally:
        with stores.meta.write() as meta:
            meta.unpin(pin)
    if not new:
        return Prepared(
            version, True, f"reused {version.reference}, because another process was first"
        )
    return Prepared(version, False, f"running, because {reason}")


def _write(blobs: Blobs, asked: _Request) -> Manifest:
    given = _call(asked.function, asked.params, asked.lineage.function)
    written = write_shards(blobs, given, key=_guarded_key(asked.key), splits=asked.splits)
    return write_manifest(
        blobs,
        columns=written.columns,
        key=written.key,
        splits=written.splits,
        shards=written.shards,
        statistics=written.statistics,
        lineage=asked.lineage,
        checks=written.checks,
        tables=written.tables,
    )


def _commit(
    stores: Stores, asked: _Request, manifest: Manifest, producer: str
) -> tuple[Version, bool]:
    """The version and its event, or the version that this producer made already."""
    splits = {name: each.rows for name, each in manifest.splits.items()}
    summary = {"rows": manifest.rows, "splits": splits, "bytes": manifest.bytes}
    with stores.meta.write() as meta:
        found = meta.find_produced("dataset", producer)
        if found is not None:
            return found, False
        version = meta.add_version(
            "dataset", asked.name, manifest.digest, producer, summary, manifest.refs
        )
        memory = {"manifest": manifest.digest, "reference": version.reference}
        meta.remember(asked.content, "dataset", memory, manifest.refs)
        meta.event(
            f"dataset/{asked.name}",
            "dataset.committed",
            {
                "version": version.version,
                "digest": manifest.digest,
                "function": asked.lineage.function,
                **summary,
            },
        )
    return version, True


# the user's own code


def _call(function: Callable[..., Any], params: dict[str, Any], entry: str) -> Any:
    """What the function gives; an iterator is watched, so that what it raises is its own."""
    try:
        given = function(**params)
    except PenstockError:
        raise
    except Exception as error:
        raise _failed(error, entry) from error
    return _watched(given, entry) if isinstance(given, Iterator) else given


def _watched(rows: Iterable[Any], entry: str) -> Iterator[Any]:
    row = 0
    iterator = iter(rows)
    while True:
        try:
            item = next(iterator)
        except StopIteration:
            return
        except PenstockError:
            raise
        except Exception as error:
            raise _failed(error, entry, row=row) from error
        yield item
        row += 1


def _guarded_key(key: str | KeyFunction | None) -> str | KeyFunction | None:
    if not callable(key):
        return key

    def guarded(row: dict[str, Any]) -> Any:
        try:
            return key(row)
        except Exception as error:
            raise _failed(error, _entry(key)[0]) from error

    return guarded


def _failed(error: Exception, entry: str, **facts: Any) -> UserCodeFailed:
    """The user's own traceback, without our frames."""
    own = error.__traceback__.tb_next if error.__traceback__ else None
    text = "".join(traceback.format_exception(type(error), error, own)).rstrip()
    where = f" after {facts['row']} rows" if facts.get("row") else ""
    return UserCodeFailed(
        f"{entry} raised {type(error).__name__}{where}: {error}",
        "Mend the function; nothing was published.",
        function=entry,
        traceback=text,
        **facts,
    )
