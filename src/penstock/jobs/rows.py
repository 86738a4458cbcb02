"""What a controller writes into the rows of its run: attempts that begin and end, the run's end.

Each function is one transaction's contents; the caller commits it under the run's lease.
"""

from __future__ import annotations

from typing import Any, Literal

from penstock.jobs.decide import Ended
from penstock.meta import Writer
from penstock.records import Attempt, Run


def begin_attempt(tx: Writer, run_id: str, number: int, generation: int, from_step: int) -> Run:
    """A new attempt, and the run as it goes on with it."""
    tx.add_attempt(Attempt(run_id, number, generation, tx.now(), from_step))
    run = tx.get_run(run_id)
    if run.state in ("pending", "running"):
        run = tx.change_run(run_id, state="running", ended_at=None, error=None)
    body = {"attempt": number, "generation": generation, "from_step": from_step}
    body["world_size"] = run.spec["world_size"]
    tx.event(f"run/{run_id}", "attempt.started", body)
    return run


def note_left_out(tx: Writer, run_id: str, modules: dict[str, str]) -> None:
    """modules  of `preload`, that the image does not have -> why"""
    spec = tx.get_run(run_id).spec
    if spec.get("not_preloaded") != modules:  # each image of the run tells it
        tx.change_run(run_id, spec={**spec, "not_preloaded": modules})
        tx.event(f"run/{run_id}", "image.left-out", {"modules": modules})


def end_attempt(
    tx: Writer, run_id: str, number: int, cause: str, reached: int, detail: dict[str, Any]
) -> None:
    tx.end_attempt(run_id, number, cause, reached, detail)
    body = {"attempt": number, "cause": cause, "to_step": reached}
    if "step" in detail and "what" in detail:  # the function raised, and is tried again
        body["raised"] = detail["what"]
    tx.event(f"run/{run_id}", "attempt.ended", body)


def end_run(tx: Writer, run_id: str, ended: Ended, step: int, result: dict[str, Any]) -> Run:
    """The run's end. One that was preempted or interrupted goes on, as soon as somebody owns it
    again."""
    old = tx.get_run(run_id)
    error = ended.detail if ended.outcome == "failed" else None
    over = ended.outcome not in ("preempted", "interrupted")
    run = tx.change_run(
        run_id,
        state=ended.outcome if over else old.state,
        ended_at=tx.now() if over else None,
        error=error,
        step=step or old.step,
        result={**old.result, **result},
    )
    body = {"error": error} if error else {"why": ended.detail.get("why")}
    tx.event(f"run/{run_id}", f"run.{ended.outcome}", body)
    return run


def break_off(
    tx: Writer, run_id: str, state: Literal["failed", "stopped"], body: dict[str, Any]
) -> None:
    """The end of a run that nothing decided: an error of its owner's, or Ctrl-C."""
    error = {"error": body["error"]} if "error" in body else {}
    tx.change_run(run_id, state=state, ended_at=tx.now(), **error)
    tx.event(f"run/{run_id}", f"run.{state}", body)
