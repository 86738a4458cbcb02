"""Runs and their attempts."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import fields
from functools import cache
from typing import Any

from sqlalchemy import bindparam, func, select, update

from penstock.base.errors import BadInput, Conflict, NotFound
from penstock.base.nearest import did_you_mean
from penstock.meta.rows.session import Session, columns
from penstock.meta.tables import attempts, runs
from penstock.records import Attempt, Run, to_data

_FIELDS = frozenset(field.name for field in fields(Run)) - {"id"}


class RunReader(Session):
    def find_run(self, run_id: str) -> Run | None:
        return self.one(Run, columns(runs, Run).where(runs.c.id == run_id))

    def get_run(self, id_or_name: str) -> Run:
        found = self.find_run(id_or_name) or self.newest_run(id_or_name)
        if found is not None:
            return found
        head = func.substr(runs.c.id, 1, len(id_or_name)) == id_or_name
        starting = self.all(Run, columns(runs, Run).where(head).limit(2)) if id_or_name else []
        if len(starting) == 1:
            return starting[0]
        if starting:
            raise BadInput(
                f'several runs have ids that start with "{id_or_name}"',
                "Write more of the id, or the run's name.",
                run=id_or_name,
            )
        names = self.texts(select(runs.c.name).distinct())
        raise NotFound(
            f'there is no run "{id_or_name}"', did_you_mean(id_or_name, names), run=id_or_name
        )

    def newest_run(self, name: str, work: str | None = None) -> Run | None:
        query = columns(runs, Run).where(runs.c.name == name)
        if work is not None:
            query = query.where(runs.c.work == work)
        return self.one(Run, query.order_by(runs.c.seq.desc()).limit(1))

    def runs(
        self, limit: int = 50, name: str | None = None, states: Sequence[str] | None = None
    ) -> list[Run]:
        query = columns(runs, Run)
        if name is not None:
            query = query.where(runs.c.name == name)
        if states is not None:
            query = query.where(runs.c.state.in_(states))
        return self.all(Run, query.order_by(runs.c.seq.desc()).limit(limit))

    def attempts(self, run_id: str) -> list[Attempt]:
        query = columns(attempts, Attempt).where(attempts.c.run_id == run_id)
        return self.all(Attempt, query.order_by(attempts.c.number))


@cache
def _change(names: frozenset[str]) -> Any:
    """Set these fields of the run `of`, and give it as it is then. Built once: it takes longer than
    the database does."""
    change = update(runs).where(runs.c.id == bindparam("of"))
    values = {name: bindparam(name, type_=runs.c[name].type) for name in sorted(names)}
    return change.values(**values).returning(*columns(runs, Run).selected_columns)


class RunWriter(RunReader):
    def add_run(self, run: Run, refs: Iterable[str] = ()) -> None:
        row = to_data(run) | {"created_at": run.created_at or self.now()}
        if not self.insert_new(runs, [row]):
            raise Conflict(f"run {run.id} exists already", "Give the run a new id.", run=run.id)
        self.keep(f"run/{run.id}", [run.source, *refs], run.spec, run.data, run.result)

    def change_run(self, run_id: str, **changes: Any) -> Run:
        if unknown := sorted(changes.keys() - _FIELDS):
            raise BadInput(
                f'a run has no field "{unknown[0]}" that can be changed',
                did_you_mean(unknown[0], _FIELDS),
                field=unknown[0],
            )
        if not changes:
            found = self.find_run(run_id)
        else:
            row = self.execute(_change(frozenset(changes)), {"of": run_id, **changes}).first()
            found = None if row is None else Run(**row._mapping)
        if found is None:
            raise NotFound(f'there is no run "{run_id}"', "See `penstock runs list`.", run=run_id)
        self.keep(f"run/{run_id}", [changes.get("source", "")], changes)
        return found

    def add_attempt(self, attempt: Attempt) -> None:
        key = {"run_id": attempt.run_id, "number": attempt.number}
        if not self.insert_new(attempts, [to_data(attempt)]) and not self._is_there(attempt):
            raise Conflict(
                f"attempt {attempt.number} of run {attempt.run_id} exists already",
                "Read the run's attempts again and take the next number.",
                **key,
            )

    def _is_there(self, attempt: Attempt) -> bool:
        """Written by this very generation: a commit whose answer was lost, made again."""
        found = [each for each in self.attempts(attempt.run_id) if each.number == attempt.number]
        return any(each.generation == attempt.generation for each in found)

    def began_at(self, run_id: str, number: int, step: int) -> None:
        which = (attempts.c.run_id == run_id, attempts.c.number == number)
        self.execute(update(attempts).where(*which).values(from_step=step))

    def end_attempt(
        self, run_id: str, number: int, cause: str, to_step: int | None, detail: Mapping[str, Any]
    ) -> None:
        """The first end stays, so that doing it again after a lost answer changes nothing."""
        self.execute(
            update(attempts)
            .where(attempts.c.run_id == run_id, attempts.c.number == number)
            .where(attempts.c.ended_at.is_(None))
            .values(ended_at=self.now(), cause=cause, to_step=to_step, detail=dict(detail))
        )
