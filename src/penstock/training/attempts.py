"""The rows of an attempt that runs inside a script: its beginning, and its end with the run's."""

from __future__ import annotations

from typing import Any

from penstock.meta import Writer
from penstock.records import Attempt, Lease, Run


def begin(tx: Writer, run_id: str, number: int, generation: int, from_step: int) -> None:
    """A new attempt. One that a killed predecessor left open ended when its process did."""
    for old in tx.attempts(run_id):
        if old.ended_at is None:
            tx.end_attempt(run_id, old.number, "interrupted", None, {})
    tx.add_attempt(Attempt(run_id, number, generation, tx.now(), from_step))
    if tx.get_run(run_id).state != "stopping":
        tx.change_run(run_id, state="running", error=None, ended_at=None)
    body = {"attempt": number, "generation": generation, "from_step": from_step}
    tx.event(f"run/{run_id}", "attempt.started", body)


def end(
    tx: Writer,
    run_id: str,
    number: int,
    lease: Lease | None,
    *,
    state: str | None,
    cause: str,
    step: int,
    error: dict[str, Any] | None = None,
    result: dict[str, Any] | None = None,
) -> Run:
    """The attempt's end, the run's, and the lease given back, in one transaction.

    state  of the run from now on; None: it goes on, as soon as somebody owns it again
    """
    known = [each for each in tx.attempts(run_id) if each.number == number and each.ended_at]
    tx.end_attempt(run_id, number, cause, step, {})
    old = tx.get_run(run_id)
    changes: dict[str, Any] = {"step": step, "result": {**old.result, **(result or {})}}
    if state is not None:
        changes |= {"state": state, "ended_at": tx.now(), "error": error}
        tx.event(f"run/{run_id}", f"run.{state}", {"error": error} if error else {})
    elif not known:  # else whoever saw that its ranks hang told its end
        body = {"attempt": number, "cause": cause, "to_step": step}
        tx.event(f"run/{run_id}", "attempt.ended", body)
    run = tx.change_run(run_id, **changes)
    if lease is not None:
        tx.drop_claim(run_id)
        tx.release_lease(lease)
    return run
