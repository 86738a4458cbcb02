"""Units of a map."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from typing import Any

from sqlalchemy import and_, bindparam, delete, func, select, update

from penstock.base.errors import Conflict, NotFound
from penstock.base.nearest import did_you_mean
from penstock.meta.rows.session import AT_ONCE, Session, columns, in_parts
from penstock.meta.tables import runs, units
from penstock.records import Unit
from penstock.records.runs import ENDED


class UnitReader(Session):
    def units(self, run_id: str, states: Sequence[str] | None = None) -> list[Unit]:
        query = columns(units, Unit).where(units.c.run_id == run_id)
        if states is not None:
            query = query.where(units.c.state.in_(states))
        return self.all(Unit, query.order_by(units.c.seq))

    def unit_counts(self, run_id: str) -> dict[str, int]:
        count = func.count().label("many")
        query = select(units.c.state, count).where(units.c.run_id == run_id)
        return {row.state: row.many for row in self.execute(query.group_by(units.c.state))}

    def _states(self, run_id: str, keys: Iterable[str]) -> dict[str, str]:
        """key -> state; NotFound when the run has no such unit. Locks the rows."""
        found: dict[str, str] = {}
        wanted = list(keys)
        for part in in_parts(wanted):
            query = select(units.c.key, units.c.state).where(units.c.run_id == run_id)
            rows = self.execute(query.where(units.c.key.in_(part)).with_for_update())
            found |= {row.key: row.state for row in rows}
        if missing := [key for key in wanted if key not in found]:
            raise NotFound(
                f'run {run_id} has no unit "{missing[0]}"',
                did_you_mean(missing[0], [unit.key for unit in self.units(run_id)]),
                run=run_id,
                unit=missing[0],
            )
        return found


class UnitWriter(UnitReader):
    def add_units(self, run_id: str, units: Mapping[str, Mapping[str, Any]]) -> int:
        new = 0
        for part in in_parts(units, AT_ONCE):
            new += self.insert_new(_units, [_waiting(run_id, key, units[key]) for key in part])
        return new

    def lease_units(self, run_id: str, generation: int, limit: int) -> list[Unit]:
        # Two questions, each answered by the index on (run, state): one question about both states
        # would pass over every unit that is done.
        waiting = units.c.state == "waiting"
        lost = and_(units.c.state == "leased", units.c.generation < generation)
        found: list[int] = []
        for free in (waiting, lost):
            query = select(units.c.seq).where(units.c.run_id == run_id, free)
            first = query.order_by(units.c.seq).limit(limit).with_for_update()
            found += self.execute(first).scalars()
        chosen = sorted(found)[:limit]
        if not chosen:
            return []
        lease = {"state": "leased", "generation": generation, "tries": units.c.tries + 1}
        self.execute(update(units).where(units.c.seq.in_(chosen)).values(**lease))
        given = columns(units, Unit).where(units.c.seq.in_(chosen))
        return self.all(Unit, given.order_by(units.c.seq))

    def give_back_units(self, run_id: str, keys: Sequence[str]) -> None:
        for part in in_parts(keys):
            self.execute(
                update(units)
                .where(units.c.run_id == run_id, units.c.key.in_(part))
                .where(units.c.state == "leased")
                .values(state="waiting")
            )

    def finish_units(
        self, run_id: str, results: Mapping[str, Mapping[str, Any]], refs: Iterable[str] = ()
    ) -> list[str]:
        states = self._states(run_id, results)
        new = [key for key in results if states[key] != "done"]
        self._settle(run_id, "done", {key: results[key] for key in new})
        self.keep(f"run/{run_id}", refs, [dict(results[key]) for key in new])
        return new

    def drop_units(self, run_id: str) -> None:
        row = self.first(select(runs.c.state, runs.c.source).where(runs.c.id == run_id))
        if row is None or row.state not in ENDED:
            raise Conflict(
                f"run {run_id} has not ended, so its units are still needed",
                "Wait for its end, or stop it.",
                run=run_id,
            )
        self.execute(delete(units).where(units.c.run_id == run_id))
        self.let_go(f"run/{run_id}")
        self.keep(f"run/{run_id}", [row.source])

    def fail_unit(self, run_id: str, key: str, error: Mapping[str, Any]) -> None:
        """The error becomes the unit's result; a unit that is done stays so."""
        if self._states(run_id, [key])[key] != "done":
            self._settle(run_id, "failed", {key: error})

    def _settle(self, run_id: str, state: str, results: Mapping[str, Mapping[str, Any]]) -> None:
        """One statement for all: a commit of many units costs little more than their rows."""
        where = (units.c.run_id == run_id, units.c.key == bindparam("unit"))
        change = update(units).where(*where).values(state=state, result=bindparam("outcome"))
        for part in in_parts(results, AT_ONCE):
            self.execute(change, [{"unit": key, "outcome": dict(results[key])} for key in part])


_units = units  # `add_units` has an argument of that name


def _waiting(run_id: str, key: str, payload: Mapping[str, Any]) -> dict[str, Any]:
    row = {"run_id": run_id, "key": key, "state": "waiting", "payload": dict(payload)}
    return row | {"result": None, "tries": 0, "generation": 0}
