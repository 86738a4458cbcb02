"""The controller's side of `run.data`: what the names of datasets mean, once for the whole run."""

from __future__ import annotations

from typing import Any

from penstock.base.errors import BadInput
from penstock.jobs.work import Call, Control
from penstock.meta import Writer
from penstock.records import Version


def import_what_ranks_ask_for() -> None:
    """So that it is there when a first rank asks; a controller waits for its ranks meanwhile."""
    from penstock.data import read_manifest, resolve  # noqa: F401


class References:
    """Of one run."""

    def __init__(self, control: Control) -> None:
        self._control = control
        self._answers: dict[str, dict[str, Any]] = {}  # to what was asked

    def known(self) -> list[dict[str, Any]]:
        """What later attempts need not ask."""
        return [
            {"kind": "data", "payload": {"reference": asked}, "answer": answer}
            for asked, answer in self._answers.items()
        ]

    def on_data(self, call: Call) -> dict[str, Any]:
        """A bare name resolves once; later attempts get what the first one got."""
        asked = call.payload["reference"]
        if asked not in self._answers:
            self._answers[asked] = self._resolved(asked)
        return self._answers[asked]

    def _resolved(self, asked: str) -> dict[str, Any]:
        from penstock.data import read_manifest, resolve

        def change(tx: Writer) -> tuple[Version, str | None]:
            run = tx.get_run(self._control.run_id)
            version, split = resolve(tx, run.data.get(asked, asked))
            if asked not in run.data:
                resolved = version.reference + (f":{split}" if split else "")
                tx.change_run(run.id, data={**run.data, asked: resolved})
            return version, split

        version, split = self._control.commit(change)
        if split is None:
            splits = list(read_manifest(self._control.stores.blobs, version.digest).splits)
            if len(splits) != 1:
                raise BadInput(
                    f'"{asked}" names no split, and {version.reference} has {len(splits)}',
                    f"Write {version.name}:SPLIT, one of: {', '.join(splits)}.",
                )
            split = splits[0]
        return {"digest": version.digest, "split": split, "reference": version.reference}

    def on_resolved(self, _: Call) -> dict[str, Any]:
        """What they resolved to so far, and the windows that are left out."""
        with self._control.stores.meta.read() as db:
            run = db.get_run(self._control.run_id)
        return {"data": run.data, "left_out": run.result.get("left_out", [])}
