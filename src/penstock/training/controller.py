"""`python -m penstock.training.controller HOME RUN`: the controller process of one training run."""

from __future__ import annotations

import os
import sys
import threading

from penstock.base import log, process
from penstock.base.errors import PenstockError
from penstock.base.settings import load_settings
from penstock.jobs.controller import Controller
from penstock.jobs.notices import listen
from penstock.jobs.stores import open_stores, pinned
from penstock.training.references import import_what_ranks_ask_for
from penstock.training.work import TrainingWork


def command(home: str, run_id: str) -> list[str]:
    """The command line that starts this process."""
    return [sys.executable, "-m", "penstock.training.controller", home, run_id]


def main(argv: list[str]) -> int:
    home, run_id = argv
    process.set_name("penstock-contr")
    settings = load_settings(home=home)
    log.set_up(settings.log_level, "json")
    try:
        with open_stores(settings) as stores:
            with stores.meta.read() as db:
                run = db.get_run(run_id)
            controller = Controller(stores, run_id, TrainingWork(run), command(home, run_id))
            listen(controller)
            threading.Thread(target=import_what_ranks_ask_for, daemon=True).start()
            with pinned(stores.meta):
                controller.run()
    except PenstockError as error:
        log.logger("controller").error(
            str(error), extra=log.facts(code=error.code, pid=os.getpid())
        )
        return error.exit_code
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
