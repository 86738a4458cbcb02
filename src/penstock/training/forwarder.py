"""`python -m penstock.training.forwarder SEGMENTS TARGET RUN NAME`: forwards a run to MLflow.

A process of its own, because the libraries of others are large, wait for networks, and have
threads: none of it may stand in the controller's way. It ends with the controller (PDEATHSIG), and
the next one starts another, which begins from what arrived.

On its stdin a letter says that nothing more will come: "f" of a run that finished, "s" of one that
did not. The end of stdin without a letter says that the controller is gone.
"""

from __future__ import annotations

import os
import select
import sys
from pathlib import Path

from penstock.base import log, process
from penstock.base.errors import MissingExtra, PenstockError
from penstock.signals.mlflow import Forwarder

_POLL = 1.0  # seconds
_AGAIN = 10.0  # seconds until the target is tried again
_log = log.logger("forwarder")


def command(segments: Path, target: str, run_id: str, name: str) -> list[str]:
    """The command line that starts this process."""
    return [sys.executable, "-m", __spec__.name, str(segments), target, run_id, name]


def main(argv: list[str]) -> int:
    segments, target, run_id, name = argv
    process.set_name("penstock-forwa")
    log.set_up("info", "json")
    said = False
    word = None
    while True:
        try:
            with Forwarder(Path(segments), target, run_id, name) as forwarder:
                while word is None:
                    forwarder.poll()
                    word = _listen(_POLL)
                if word:
                    forwarder.poll(final=True)
                    forwarder.end(finished=word == "f")
            return 0
        except PenstockError as error:
            if not said:
                _log.warning("nothing to MLflow: %s", error, extra=log.facts(code=error.code))
            said = True
            if isinstance(error, MissingExtra) or word is not None:
                return error.exit_code
            word = _listen(_AGAIN)  # and once more at the end
            if word == "":
                return error.exit_code


def _listen(seconds: float) -> str | None:
    """The letter, "" when the controller is gone, None when there is nothing to hear yet."""
    ready, _, _ = select.select([0], [], [], seconds)
    return os.read(0, 1).decode() if ready else None


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
