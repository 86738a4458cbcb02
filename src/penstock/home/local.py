"""The home on this machine: one question, one call into a room, one view back."""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterator, Sequence
from contextlib import AbstractContextManager, contextmanager
from typing import TYPE_CHECKING, Any

from penstock.base.layout import Layout
from penstock.base.settings import Settings, load_settings
from penstock.home.local_data import LocalData
from penstock.home.views import (
    Check,
    CheckpointVerdict,
    CheckpointView,
    ClaimView,
    ClusterView,
    ExportView,
    ForkView,
    Process,
    RunDetail,
    RunView,
    StudyView,
    VersionDetail,
    VersionView,
)

if TYPE_CHECKING:
    from penstock.home.cluster import ClusterWatch
    from penstock.home.port import Home
    from penstock.jobs.stores import Stores
    from penstock.monitoring import Account, Accountant, Watched
    from penstock.records import Alias, Deployment, Evaluation, Event

Tell = Callable[[str], None]  # what is being done
_ACCOUNTANTS = 4  # that are kept


class LocalHome(LocalData):
    """A `Home` over the stores that the settings name.

    The stores are opened with the first question that needs them and closed by `close`; a door
    that forgets to close loses nothing, as no transaction outlives its call.
    """

    def __init__(self, settings: Settings | None = None) -> None:
        self.settings = settings or load_settings()
        self.layout = Layout(self.settings.home)
        self._stores: Stores | None = None
        self._opening = threading.Lock()
        self._accountants: dict[str, Accountant] = {}
        self._cluster: ClusterWatch | None = None

    @property
    def where(self) -> str:
        return str(self.settings.home)

    @property
    def stores(self) -> Stores:
        """The open stores; raises what opening them raises (ReadOnly, NetworkHome, …)."""
        from penstock.jobs.stores import open_stores

        with self._opening:
            if self._stores is None:
                self._stores = open_stores(self.settings)
            return self._stores

    def close(self) -> None:
        with self._opening:
            if self._cluster is not None:
                self._cluster.close()
                self._cluster = None
            if self._stores is not None:
                self._stores.close()
                self._stores = None
            self._accountants.clear()

    # runs

    def runs(
        self, limit: int = 50, name: str | None = None, states: Sequence[str] | None = None
    ) -> list[RunView]:
        from penstock.home import runs

        return runs.listed(self.stores, limit, name, states)

    def run(self, run: str) -> RunDetail:
        from penstock.home import runs

        return runs.detail(self.stores, run)

    def metrics(self, run: str, names: Sequence[str] = ()) -> dict[str, list[tuple[int, float]]]:
        from penstock.home import runs

        return runs.metrics(self.stores, run, names)

    def account(self, run: str) -> Account:
        return self._accountant(run).look()

    def watch(self, run: str) -> Watched:
        return self._accountant(run).watch()

    def _accountant(self, run: str) -> Accountant:
        """The one of this run, which knows what it has read; the last few are kept."""
        from penstock.monitoring import Accountant

        run_id = self._id(run)
        with self._opening:
            found = self._accountants.pop(run_id, None)
        found = found or Accountant(self.stores, run_id)
        with self._opening:
            self._accountants[run_id] = found
            while len(self._accountants) > _ACCOUNTANTS:
                del self._accountants[next(iter(self._accountants))]
        return found

    def logs(
        self, run: str, rank: int | None = None, follow: bool = False, every: bool = False
    ) -> Iterator[str]:
        from penstock.home import runs

        return runs.logs(self.stores, self._id(run), rank, follow, every)

    def study(self, name: str) -> StudyView:
        from penstock.home import studies

        return studies.one(self.stores, name)

    def stop_run(self, run: str) -> RunView:
        from penstock.home import runs
        from penstock.jobs import control

        run_id = self._id(run)
        control.stop(self.stores, run_id)
        return runs.one(self.stores, run_id)

    def resize_run(self, run: str, workers: int) -> RunView:
        from penstock.home import runs
        from penstock.jobs import control

        run_id = self._id(run)
        control.resize(self.stores, run_id, workers)
        return runs.one(self.stores, run_id)

    def resume_run(self, run: str) -> RunView:
        from penstock.home import runs
        from penstock.jobs import control

        run_id = self._id(run)
        control.resume(self.stores, run_id)
        return runs.one(self.stores, run_id)

    def fork_run(
        self, origin: str, overrides: Sequence[str] = (), name: str | None = None
    ) -> ForkView:
        from penstock.home import runs

        return runs.forked(self.stores, origin, overrides, name)

    def pids(self, run: str | None = None) -> list[Process]:
        from penstock.home import runs

        return runs.processes(self.stores, None if run is None else self._id(run))

    def queue(self) -> list[ClaimView]:
        from penstock.home import runs

        return runs.queue(self.stores)

    def verify_run(self, run: str) -> list[CheckpointVerdict]:
        from penstock.home import runs

        return runs.verified(self.stores, self._id(run))

    def checkpoints(self, run: str, verify: bool = False) -> list[CheckpointView]:
        from penstock.home import checkpoints

        return checkpoints.listed(self.stores, run, verify)

    def pin_checkpoint(self, reference: str, note: str = "") -> CheckpointView:
        from penstock.home import checkpoints

        return checkpoints.pin(self.stores, reference, note)

    def unpin_checkpoint(self, reference: str) -> CheckpointView:
        from penstock.home import checkpoints

        return checkpoints.unpin(self.stores, reference)

    def export_checkpoint(self, reference: str, path: str, form: str = "torch") -> ExportView:
        from penstock.home import checkpoints

        return checkpoints.export(self.stores, reference, path, form)

    def import_checkpoint(
        self, name: str, path: str, form: str | None = None, step: int = 0
    ) -> CheckpointView:
        from penstock.home import checkpoints

        return checkpoints.import_file(self.stores, name, path, form, step)

    def dcp_reader(self, reference: str) -> Any:
        """A StorageReader of torch.distributed.checkpoint over RUN@STEP."""
        from penstock.training import exporting

        return exporting.dcp_reader(self.stores, reference)

    def dcp_writer(self, name: str, step: int = 0) -> Any:
        """A StorageWriter of torch.distributed.checkpoint, which makes a run of this name."""
        from penstock.training import exporting

        return exporting.dcp_writer(self.stores, name, step)

    def adopt(self) -> list[str]:
        from penstock.jobs import control

        return control.adopt(self.stores)

    def _id(self, run: str) -> str:
        with self.stores.meta.read() as meta:
            return meta.get_run(run).id

    # models

    def models(self, name: str | None = None, limit: int = 100) -> list[VersionView]:
        from penstock.home import versions

        return versions.listed(self.stores, "model", name, limit)

    def model(self, reference: str) -> VersionDetail:
        from penstock.home import versions

        return versions.detail(self.stores, "model", reference)

    def why(self, reference: str) -> dict[str, Any]:
        from penstock.home import versions

        return versions.why(self.stores, reference)

    def promote(self, reference: str, alias: str, evaluation: str | None = None) -> Alias:
        from penstock.home import versions

        return versions.promote(self.stores, reference, alias, evaluation)

    # evaluations

    def evaluations(self, model: str | None = None, limit: int = 100) -> list[Evaluation]:
        from penstock.home import versions

        with self.stores.meta.read() as meta:
            wanted = None if model is None else versions.resolved(meta, "model", model)
            return meta.evaluations(model=wanted, limit=limit)

    def evaluation(self, evaluation_id: str) -> dict[str, Any]:
        from penstock.home import versions

        return versions.report(self.stores, evaluation_id)

    # deployments

    def deployments(self) -> list[Deployment]:
        with self.stores.meta.read() as meta:
            return meta.deployments()

    def deployment(self, name: str) -> Deployment:
        with self.stores.meta.read() as meta:
            return meta.get_deployment(name)

    def deploy(self, name: str, model: str) -> Deployment:
        from penstock import serving

        return serving.deploy(self.stores, name, model)

    def stop_deployment(self, name: str) -> Deployment:
        from penstock import serving

        return serving.stop(self.stores, name)

    @contextmanager
    def serve(self, name: str, model: str, timeout: float = 60.0) -> Iterator[str]:
        """Deploy and keep it up here while the context is open; gives "127.0.0.1:PORT"."""
        from penstock import serving

        serving.deploy(self.stores, name, model)
        with serving.foreground(self.stores, name, timeout=timeout) as address:
            yield address

    def keep_deployments(self) -> AbstractContextManager[object]:
        from penstock import serving

        return serving.Keeper(self.stores)

    # the rest

    def events(
        self, after: int = 0, subject: str | None = None, limit: int = 1000, wait: float = 0.0
    ) -> list[Event]:
        if wait > 0:
            return self.stores.meta.wait_events(after, subject, timeout=wait, limit=limit)
        with self.stores.meta.read() as meta:
            return meta.events(after=after, subject=subject, limit=limit)

    def last_event(self) -> int:
        with self.stores.meta.read() as meta:
            return meta.last_event()

    def collect_garbage(self, apply: bool = True) -> dict[str, Any]:
        from penstock.home import gc
        from penstock.jobs import compiled
        from penstock.records import to_data

        found: dict[str, Any] = to_data(gc.collect_garbage(self.stores, dry_run=not apply))
        folder, limit = self.stores.layout.compiled, self.settings.compiled_bytes
        found["compiled_bytes"] = compiled.trim(folder, limit, dry_run=not apply)
        return found

    def doctor(self) -> list[Check]:
        from penstock.home import doctor

        return doctor.look(self.settings)

    def examine(self, tell: Tell, patience: float | None = None) -> list[Check]:
        from penstock.home.doctor import cluster

        return cluster.look(self.settings, patience or cluster.PATIENCE, tell)

    def cluster(self, tell: Tell) -> ClusterView:
        from penstock.home.cluster import ClusterWatch

        stores = self.stores
        with self._opening:
            watch = self._cluster = self._cluster or ClusterWatch(stores)
        return watch.look(tell)


def open_home(settings: Settings | None = None, **arguments: Any) -> LocalHome:
    """The home that the settings name; arguments are settings. Opens and creates nothing yet."""
    return LocalHome(settings or load_settings(**arguments))


if TYPE_CHECKING:
    _HOLDS: Home = LocalHome()  # mypy compares it with the port
