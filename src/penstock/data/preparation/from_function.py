"""`prepare(name, function)`: a function's rows, written in this process as they come.

While it writes it holds a pin, so that garbage collection leaves its shards alone. Two processes
that prepare the same content give one version: whoever commits second finds the first's by its
producer.
"""

from __future__ import annotations

import inspect
from collections.abc import Callable, Mapping
from typing import TYPE_CHECKING, Any

from penstock.base.errors import BadInput
from penstock.base.hashing import digest_json
from penstock.data.keys import KeyFunction, check_splits
from penstock.data.manifest import Lineage, Manifest, write_manifest
from penstock.data.preparation.again import Twice, Watch
from penstock.data.preparation.past import Request
from penstock.data.preparation.steps import check_params, entry_of
from penstock.data.shards import write_shards
from penstock.data.types import Type, Types
from penstock.jobs.source import git_commit, identity
from penstock.records.references import check_name

if TYPE_CHECKING:
    from penstock.blobs import Blobs

CODE = 3  # raised when the same function would give another version


def request(
    name: str,
    function: Callable[..., Any],
    key: str | KeyFunction | None,
    splits: Mapping[str, float] | None,
    params: Mapping[str, Any] | None,
    types: Types | None = None,
) -> Request:
    """Raises BadInput."""
    check_name(name, "dataset name")
    shares = check_splits(splits)
    values = _params(function, params)
    code = identity(function)
    key_code = identity(key).digest if callable(key) else key
    told_key = entry_of(key)[0] if callable(key) else key or "content"
    entry, root = entry_of(function)
    content = digest_json(
        {
            "what": "dataset",
            "format": CODE,
            "code": code.digest,
            "params": values,
            "key": [callable(key), key_code],
            "splits": [[split, share] for split, share in shares.items()],
            **({"types": told_types(types)} if types else {}),
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
    return Request(name, shares, {"kind": "key", "column": ""}, lineage)


def _params(function: Callable[..., Any], params: Mapping[str, Any] | None) -> dict[str, Any]:
    values = check_params(params)
    check_call(function, values)
    return values


def check_call(function: Callable[..., Any], params: Mapping[str, Any]) -> None:
    """Raise BadInput where the function cannot be called with these parameters."""
    try:
        inspect.signature(function).bind(**params)
    except TypeError as error:
        raise BadInput(
            f"{entry_of(function)[0]} cannot be called with params={dict(params)}: {error}",
            "Pass params={…} with a value for each argument that has no default.",
        ) from None
    except ValueError:  # a builtin without a signature
        return


def write(
    blobs: Blobs,
    function: Callable[..., Any],
    asked: Request,
    key: str | KeyFunction | None,
    types: Types | None,
) -> tuple[Manifest, tuple[str, ...]]:
    """Run the function and store its rows and their manifest. Hold a pin. Also lines to tell.

    Raises BadInput, UserCodeFailed, and what `put` raises; no row refers to anything then.
    """
    watch = Watch(function, asked.lineage.params, asked.lineage.function)
    twice = Twice(key, asked.lineage.key) if callable(key) else None
    written = write_shards(blobs, watch.given, key=twice or key, splits=asked.shares, types=types)
    lines = [line for line in (watch.unstable(), twice.unstable() if twice else "") if line]
    manifest = write_manifest(
        blobs,
        columns=written.columns,
        key=written.key,
        splits=written.splits,
        shards=written.shards,
        statistics=written.statistics,
        lineage=asked.lineage,
        checks=written.checks,
        tables=written.tables,
        notes={"unstable_calls": lines} if lines else {},
    )
    return manifest, tuple(lines)


def told_types(types: Types) -> dict[str, Any]:
    """Types as JSON has them; of what is no type its text, which is refused later."""
    return {
        name: [each.meaning, each.options] if isinstance(each, Type) else repr(each)
        for name, each in sorted(types.items())
    }
