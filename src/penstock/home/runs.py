"""Runs as doors show them: rows and leases from meta, scalars from signals, hashes from blobs."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import TYPE_CHECKING, Any

from penstock.base.errors import NotFound
from penstock.home.views import CheckpointVerdict, ClaimView, ForkView, Process, RunDetail, RunView
from penstock.records import to_data
from penstock.records.runs import ENDED, Run

if TYPE_CHECKING:
    from penstock.jobs.stores import Stores
    from penstock.meta.port import Reader

_GOING_ON = ("pending", "running", "stopping")
_STORED_AS = {"interrupted": ("running", "stopping")}  # shown state -> states in the row


def view(meta: Reader, run: Run) -> RunView:
    """A run with the state that its lease gives it."""
    from penstock.jobs import control

    spec = run.spec
    return RunView(
        id=run.id,
        name=run.name,
        work=run.work,
        state=control.state_of(run, meta.find_lease(f"run/{run.id}"), meta.now()),
        step=run.step,
        steps=spec.get("steps"),
        workers=_workers(spec),
        detached=run.detached,
        created_at=run.created_at,
        ended_at=run.ended_at,
        data=run.data,
        result=run.result,
        error=run.error,
    )


def _workers(spec: dict[str, Any]) -> int:
    """Ranks; 0 where it runs inside the script."""
    fixed = "workers" in spec and not spec.get("elastic")
    return int(spec["workers"] if fixed else spec.get("world_size", 0))


def one(stores: Stores, run: str) -> RunView:
    """By id, prefix or name."""
    with stores.meta.read() as meta:
        return view(meta, meta.get_run(run))


def listed(
    stores: Stores, limit: int, name: str | None, states: Sequence[str] | None
) -> list[RunView]:
    """Newest first; `states` as shown: a row that says running may not be, so more are read."""
    if not states:
        with stores.meta.read() as meta:
            return [view(meta, run) for run in meta.runs(limit=limit, name=name)]
    stored = sorted({each for state in states for each in _STORED_AS.get(state, (state,))})
    read = limit
    while True:
        with stores.meta.read() as meta:
            rows = meta.runs(limit=read, name=name, states=stored)
            views = [found for run in rows if (found := view(meta, run)).state in states]
        if len(views) >= limit or len(rows) < read:
            return views[:limit]
        read *= 4


def forked(stores: Stores, origin: str, overrides: Sequence[str], name: str | None) -> ForkView:
    """A new run from a checkpoint of another, started."""
    from penstock.training.forking import fork

    made = fork(stores, origin, overrides, name)
    step = made.origin.checkpoint.step
    shown = one(stores, made.run.id)
    return ForkView(
        shown, made.origin.run.id, step, made.origin.text, made.changed, made.origin.notes
    )


def detail(stores: Stores, run: str) -> RunDetail:
    """A run with its attempts, checkpoints and last scalars."""
    with stores.meta.read() as meta:
        found = meta.get_run(run)
        shown = view(meta, found)
        attempts = meta.attempts(found.id)
        checkpoints = meta.checkpoints(found.id)
        units = meta.unit_counts(found.id)
    series = metrics(stores, found.id, ())
    last = {name: points[-1] for name, points in series.items() if points}
    return RunDetail(shown, found.spec, attempts, checkpoints, last, units)


def metrics(stores: Stores, run: str, names: Sequence[str]) -> dict[str, list[tuple[int, float]]]:
    """Scalars over steps, reduced over ranks; of a step logged twice the newest generation wins."""
    from penstock import signals

    with stores.meta.read() as meta:
        run_id = meta.get_run(run).id
    table = signals.reduce_scalars(signals.read_scalars(stores.layout.signals(run_id)))
    series: dict[str, list[tuple[int, float]]] = {}
    for row in table.to_pylist():
        if not names or row["name"] in names:
            series.setdefault(row["name"], []).append((row["step"], row["value"]))
    return {name: sorted(points) for name, points in sorted(series.items())}


def logs(stores: Stores, run_id: str, rank: int | None, follow: bool, every: bool) -> Iterator[str]:
    """Lines of a run's processes; a followed run is over when it ended or nobody owns it.

    Raises NotFound for one that has none, because it ran inside its script.
    """
    from penstock.jobs import logs as files

    with stores.meta.read() as meta:
        run = meta.get_run(run_id)
    launcher = run.spec.get("launcher")
    inside = launcher or run.spec.get("workers") == 0
    if inside and not files.files(stores.layout, run_id, every=True):
        if launcher:
            raise NotFound(
                f'run "{run.name}" has no logs: {launcher} started its ranks, and has what they '
                "print",
                f"Look where {launcher} writes; `torchrun --log-dir FOLDER --redirects 3` and "
                "`srun --output FILE` give each rank a file, Ray one in its session's logs.",
                run=run_id,
            )
        raise NotFound(
            f'run "{run.name}" has no logs: with workers=0 its own script printed everything',
            "Look where the script was run; with workers=1 each rank has a log.",
            run=run_id,
        )
    over = (*ENDED, "interrupted")
    ended = (lambda: one(stores, run_id).state in over) if follow else None
    return files.follow(stores.layout, run_id, rank=rank, every=every, ended=ended)


def processes(stores: Stores, run_id: str | None) -> list[Process]:
    """Live processes of a run, or of every run that is not ended."""
    from penstock.jobs import control

    if run_id is not None:
        ids = [run_id]
    else:
        with stores.meta.read() as meta:
            ids = [run.id for run in meta.runs(limit=1000, states=_GOING_ON)]
    return [
        Process(
            each, found["role"], found["pid"], found["rank"] if found["role"] == "rank" else None
        )
        for each in ids
        for found in control.pids(stores, each)
    ]


def queue(stores: Stores) -> list[ClaimView]:
    """Who holds devices and who waits for some, in order of arrival; what the dead left is not
    shown."""
    from penstock.jobs import claiming, queueing

    with stores.meta.read() as meta:
        live = [each for each in meta.claims() if claiming.is_live(meta, each, stores)]
        views = []
        for each in live:
            run = meta.get_run(each.run_id)
            others = [one for one in live if one.host == each.host and one is not each]
            ahead = [] if each.holds else queueing.in_the_way(each, others)
            views.append(
                ClaimView(
                    run=run.id,
                    name=run.name,
                    host=each.host,
                    state="holds" if each.holds else "waits",
                    wants=each.wants,
                    devices=each.holds,
                    waits_for=[claiming.told(meta, one) for one in ahead],
                    since=each.since,
                )
            )
    return sorted(views, key=lambda view: view.state == "waits")


def verified(stores: Stores, run_id: str) -> list[CheckpointVerdict]:
    """Every checkpoint read back and compared with its hashes, newest first."""
    from penstock import checkpoints

    with stores.meta.read() as meta:
        rows = meta.checkpoints(run_id)
    verdicts = []
    for row in rows:
        damages: list[Any] = [to_data(each) for each in checkpoints.verify(row, stores.blobs)]
        verdicts.append(CheckpointVerdict(row.step, not damages, row.bytes, damages))
    return verdicts
