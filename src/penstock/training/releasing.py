"""The controller's side of `run.publish`: one version per run and name, whoever asks how often."""

from __future__ import annotations

from typing import Any

from penstock.jobs.work import Call, Control
from penstock.meta import Writer
from penstock.records import Version


class Releases:
    """Of one run."""

    def __init__(self, control: Control) -> None:
        self._control = control
        self._waiting: list[Call] = []

    def new_attempt(self) -> None:
        """Nobody waits any more."""
        self._waiting = []

    def _producer(self, name: str) -> str:
        return f"run/{self._control.run_id}/{name}"

    def on_find(self, call: Call) -> dict[str, Any]:
        with self._control.stores.meta.read() as db:
            found = db.find_produced("model", self._producer(call.payload["name"]))
        if found is None:
            return {}
        self._tell(found.name, found.reference)
        return {"reference": found.reference}

    def on_wait(self, call: Call) -> dict[str, Any] | None:
        with self._control.stores.meta.read() as db:
            found = db.find_produced("model", self._producer(call.payload["name"]))
        if found is not None:
            return {"reference": found.reference}
        self._waiting.append(call)
        return None

    def on_publish(self, call: Call) -> dict[str, Any]:
        wanted = call.payload
        run_id = self._control.run_id

        def change(tx: Writer) -> Version:
            producer = self._producer(wanted["name"])
            known = tx.find_produced("model", producer)
            version = known or tx.add_version(
                "model",
                wanted["name"],
                wanted["digest"],
                producer,
                wanted["summary"],
                wanted["refs"],
            )
            run = tx.get_run(run_id)
            models = {**run.result.get("models", {}), version.name: version.reference}
            result = {**run.result, "models": models, "model": version.reference}
            tx.change_run(run_id, result={**result, "weights": wanted["summary"].get("weights")})
            if known is None:
                notes = wanted["summary"].get("notes", [])
                body = {"reference": version.reference, "run": run_id, "notes": notes}
                for subject in (f"model/{version.name}", f"run/{run_id}"):
                    tx.event(subject, "model.published", body)
            return version

        version = self._control.commit(change, alone=True)  # other runs may publish that name
        self._tell(version.name, version.reference)
        return {"reference": version.reference}

    def _tell(self, name: str, reference: str) -> None:
        waiting, self._waiting = self._waiting, []
        for call in waiting:
            if call.payload["name"] == name:
                self._control.reply(call, {"reference": reference})
            else:
                self._waiting.append(call)
