"""What telling costs a step: the loop of a rank around an empty step, with `run.backward` twice.

python accounting_step.py RESULT STEPS
"""

from __future__ import annotations

import json
import sys
import tempfile
import time
from pathlib import Path

from penstock.jobs.pulse import Pulse
from penstock.signals import Emitter
from penstock.training.accounting import Accounts


def nothing() -> None:
    """As quick as a collective operation can be."""


def main(result: Path, steps: int) -> None:
    with tempfile.TemporaryDirectory() as folder:
        emitter = Emitter(Path(folder), "run", 0, 1)
        accounts = Accounts(emitter, Pulse())
        accounts.collectives()
        batch = {"row": [1, 2, 3]}
        items = accounts.timed((batch for _ in range(steps)), 0)
        began = time.thread_time()
        for step, _ in enumerate(items, 1):
            accounts.exchanging(nothing)
            accounts.exchanging(nothing)
            accounts.step_done(step)
        took = time.thread_time() - began
        emitter.close()
    result.write_text(json.dumps({"seconds": took / steps}))


if __name__ == "__main__":
    main(Path(sys.argv[1]), int(sys.argv[2]))
