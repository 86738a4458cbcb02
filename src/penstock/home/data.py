"""What doors ask about dataset versions: rows, statistics, damage, origin, labels, files."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from penstock.base.errors import Conflict
from penstock.records import Alias, Version, to_data
from penstock.records.looks import (
    Ancestor,
    ColumnSummary,
    DataDiff,
    DataExpectations,
    DataFindings,
    DataRows,
    DataVerdict,
    Exported,
    Imported,
)

if TYPE_CHECKING:
    from penstock.jobs.stores import Stores

Progress = Callable[[int, int], None]


def rows(
    stores: Stores, reference: str, limit: int, start: int, columns: Sequence[str] | None
) -> DataRows:
    """Some rows, large values summarised; of the first split where none is said."""
    from penstock import data
    from penstock.data.showing import column_text, plain_row

    opened = data.open_dataset(stores, _with_split(stores, reference))
    part = opened.select(columns or None, start, start + limit)
    return DataRows(
        reference=opened.reference,
        columns={each.name: column_text(each) for each in part.columns},
        rows=[plain_row(row) for row in part],
        start=start,
        total=len(opened),
    )


def _with_split(stores: Stores, reference: str) -> str:
    from penstock import data

    with stores.meta.read() as meta:
        version, split = data.resolve(meta, reference)
    if split is None:
        split = next(iter(data.read_manifest(stores.blobs, version.digest).splits))
    return f"{version.reference}:{split}"


def stream(
    stores: Stores, reference: str, columns: Sequence[str] | None, start: int, stop: int | None
) -> Iterator[bytes]:
    """Rows as an Arrow IPC stream, in pieces."""
    from penstock import data
    from penstock.data.exporting import arrow_stream

    opened = data.open_dataset(stores, _with_split(stores, reference))
    return arrow_stream(opened.select(columns or None, start, stop))


def statistics(stores: Stores, reference: str) -> list[ColumnSummary]:
    """Every column over the whole version."""
    from penstock.data import read_manifest
    from penstock.data.overview import summaries

    return summaries(read_manifest(stores.blobs, _version(stores, reference).digest))


def verify(stores: Stores, reference: str, on_progress: Progress | None) -> DataVerdict:
    """Every byte against its hash."""
    from penstock.data.verifying import verify as verify_version

    return verify_version(stores.blobs, _version(stores, reference), on_progress)


def diff(stores: Stores, old: str, new: str | None) -> DataDiff:
    """Two versions; the second one by default the newest of the first one's name."""
    from penstock.data import read_manifest
    from penstock.data.diff import diff as compare
    from penstock.data.showing import plain

    one = _version(stores, old)
    other = _version(stores, one.name if new is None else new)
    was, now = (read_manifest(stores.blobs, each.digest, each.reference) for each in (one, other))
    found = compare(stores.blobs, was, now)
    told = to_data(found)
    told.pop("read")
    drift = [
        {name: _plain(value, plain) for name, value in each.items()} for each in told.pop("drift")
    ]
    return DataDiff(
        old=one.reference,
        new=other.reference,
        equal=found.equal,
        drift=drift,
        splits=dict(found.splits),
        **{name: told[name] for name in told if name != "splits"},
    )


def _plain(value: Any, plain: Callable[[Any], Any]) -> Any:
    """NaN and infinities, which JSON has not, as text, however deep they are."""
    if isinstance(value, dict):
        return {name: _plain(each, plain) for name, each in value.items()}
    return [_plain(each, plain) for each in value] if isinstance(value, list) else plain(value)


def expect(stores: Stores, reference: str) -> DataExpectations:
    """What the next version should look like, inferred from this one."""
    from penstock.data import read_manifest
    from penstock.data.expectations import infer

    version = _version(stores, reference)
    manifest = read_manifest(stores.blobs, version.digest, version.reference)
    found = infer(stores.blobs, manifest, version.reference)
    return DataExpectations(version.reference, len(found), found.to_toml())


def check(
    stores: Stores, reference: str, file: str | Path, on_progress: Progress | None
) -> DataFindings:
    """Every row against a file of expectations, which is read before any of them."""
    from penstock.data import read_manifest
    from penstock.data.expectations import check as check_rows
    from penstock.data.expectations import load

    expectations = load(file)
    version = _version(stores, reference)
    manifest = read_manifest(stores.blobs, version.digest, version.reference)
    found = check_rows(stores.blobs, manifest, expectations, on_progress)
    return DataFindings(
        reference=version.reference,
        rows=manifest.rows,
        rules=len(expectations),
        refused=any(each.severity == "refuse" for each in found),
        violations=[each.as_dict() for each in found],
    )


def lineage(stores: Stores, reference: str) -> Ancestor:
    """What it was made from, down to files and functions."""
    from penstock.data.ancestry import ancestry

    return ancestry(stores, reference)


def export(
    stores: Stores,
    reference: str,
    folder: Path,
    format: str,
    columns: Sequence[str] | None,
    on_progress: Progress | None,
) -> Exported:
    """Files in a folder that appears whole."""
    from penstock.data.exporting import export as export_version

    return export_version(
        stores, reference, folder, format, columns=columns or None, on_progress=on_progress
    )


_OF_FILES = ("format", "columns", "cast")  # options of the source; the others are `prepare`'s


def import_files(
    stores: Stores,
    name: str,
    files: Sequence[str],
    options: Mapping[str, Any],
    on_progress: Progress | None,
) -> Imported:
    """Files as a version; see the port for the options."""
    from penstock import data

    given = dict(options)
    source: Any = files[0] if len(files) == 1 else list(files)
    reading = {key: found for key in _OF_FILES if (found := given.pop(key, None))}
    if reading:
        source = {"given": source, **reading}
    tell = None if on_progress is None else (lambda told: on_progress(told.done, told.total))
    wanted = {key: value for key, value in given.items() if value is not None}
    found = data.prepare(stores, name, source, on_progress=tell, **wanted)
    summary = found.version.summary
    return Imported(
        reference=found.reference,
        reused=found.reused,
        why=found.why,
        notes=list(found.notes),
        rows=summary["rows"],
        splits=summary["splits"],
    )


# labels


def move_alias(stores: Stores, reference: str, alias: str, expect: int | None) -> Alias:
    """Point an alias at a version, by compare-and-swap on where it points now.

    expect  the version that it must point at now; 0: it must not be there. Conflict otherwise
    """
    with stores.meta.read() as meta:
        version = meta.get_version("dataset", reference)
        now = meta.find_alias("dataset", version.name, alias)
    points_at = now.version if now is not None else 0
    if expect is not None and expect != points_at:
        where = f"points at {version.name}@{points_at}" if now else "is not there"
        raise Conflict(
            f"{version.name}@{alias} {where}, not at version {expect}",
            "Look where it points now, then decide again.",
            reference=f"{version.name}@{alias}",
            expected=expect,
            found=points_at,
        )
    if now is not None and now.version == version.version:
        return now
    with stores.meta.write() as meta:
        revision = None if now is None else now.revision
        return meta.move_alias("dataset", version.name, alias, version.version, revision)


def tag(stores: Stores, reference: str, add: Sequence[str], remove: Sequence[str]) -> list[str]:
    """Give and take labels in one transaction; returns those that the version has then."""
    with stores.meta.write() as meta:
        version = meta.get_version("dataset", reference)
        for each in add:
            meta.tag("dataset", version.name, version.version, each)
        for each in remove:
            meta.untag("dataset", version.name, version.version, each)
        tags = meta.tags("dataset", version.name)
    return [each.tag for each in tags if each.version == version.version]


def _version(stores: Stores, reference: str) -> Version:
    with stores.meta.read() as meta:
        return meta.get_version("dataset", reference)
