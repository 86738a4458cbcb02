"""`python -m penstock.training.forwarder TRACKER SEGMENTS TARGET RUN NAME`: forwards a run to a
tracker, mlflow or wandb.

A process of its own, because the libraries of others are large, wait for networks, and have
threads: none of it may stand in the controller's way. It ends with the controller (PDEATHSIG), and
the next one starts another, which begins from what arrived.

On its stdin a letter says that nothing more will come: "f" of a run that finished, "s" of one that
did not. The end of stdin without a letter says that the controller is gone.
"""

from __future__ import annotations

import json
import os
import select
import sys
from pathlib import Path
from typing import Any

from penstock.base import log, process
from penstock.base.errors import MissingExtra, PenstockError

NAMES = {"mlflow": "MLflow", "wandb": "W&B"}
_POLL = 1.0  # seconds
_AGAIN = 10.0  # seconds until the target is tried again
_log = log.logger("forwarder")


def command(tracker: str, segments: Path, target: str, run_id: str, name: str) -> list[str]:
    """The command line that starts this process."""
    return [sys.executable, "-m", __spec__.name, tracker, str(segments), target, run_id, name]


def config_beside(segments: Path) -> Path:
    """Where a process of a tracker finds the run's config, as JSON."""
    return segments.parent / "config.json"


def main(argv: list[str]) -> int:
    tracker, segments, *about = argv
    process.set_name("penstock-forwa")
    log.set_up("info", "json")
    said = False
    word = None
    while True:
        try:
            with _forwarder(tracker, Path(segments), *about) as forwarder:
                while word is None:
                    forwarder.poll()
                    word = _listen(_POLL)
                if word:
                    forwarder.poll(final=True)
                    forwarder.end(finished=word == "f")
            return 0
        except PenstockError as error:
            if not said:
                facts = log.facts(code=error.code)
                _log.warning("nothing to %s: %s", NAMES[tracker], error, extra=facts)
            said = True
            if isinstance(error, MissingExtra) or word is not None:
                return error.exit_code
            word = _listen(_AGAIN)  # and once more at the end
            if word == "":
                return error.exit_code


def _forwarder(tracker: str, segments: Path, target: str, run_id: str, name: str) -> Any:
    """Raises MissingExtra, Unavailable."""
    if tracker == "mlflow":
        from penstock.signals import mlflow

        return mlflow.Forwarder(segments, target, run_id, name)
    from penstock.signals import wandb

    config = json.loads(config_beside(segments).read_text())
    return wandb.Forwarder(segments, target, run_id, name, config or {})


def _listen(seconds: float) -> str | None:
    """The letter, "" when the controller is gone, None when there is nothing to hear yet."""
    ready, _, _ = select.select([0], [], [], seconds)
    return os.read(0, 1).decode() if ready else None


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
