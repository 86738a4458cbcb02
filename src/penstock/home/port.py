"""The port of a home: everything a door may ask for. `local` answers here, `remote` will far away.

Every answer is a record or a view: frozen, JSON-able, without open files or connections. Every
failure is one `PenstockError`. Runs are named by id, unique id prefix, or name (the newest of
that name); versions by reference, NAME[@VERSION-OR-ALIAS].
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from contextlib import AbstractContextManager
from typing import Any, Protocol

from penstock.home.data_port import DataHome
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
from penstock.monitoring import Account, Watched
from penstock.records import Alias, Deployment, Evaluation, Event


class Home(DataHome, Protocol):
    """Safe for many threads. Nothing is opened or created before the first question."""

    @property
    def where(self) -> str:
        """The home's folder or URL, for messages."""
        ...

    # runs
    def runs(
        self, limit: int = 50, name: str | None = None, states: Sequence[str] | None = None
    ) -> list[RunView]:
        """Newest first. `states` are states as shown, `interrupted` among them."""
        ...

    def run(self, run: str) -> RunDetail:
        """Raises NotFound, which offers the nearest."""
        ...

    def metrics(self, run: str, names: Sequence[str] = ()) -> dict[str, list[tuple[int, float]]]:
        """Scalars over steps, means over ranks; all names when none is given."""
        ...

    def account(self, run: str) -> Account:
        """Where the seconds of a training went, up to now. Raises NotFound, BadInput (a map)."""
        ...

    def watch(self, run: str) -> Watched:
        """A training at this moment, with its account; asked again, only what is new is read."""
        ...

    def logs(
        self, run: str, rank: int | None = None, follow: bool = False, every: bool = False
    ) -> Iterator[str]:
        """Lines of the ranks without their newline; following ends when the run ends.

        every  also the lines of controller, agent, image and sidecars
        """
        ...

    def study(self, name: str) -> StudyView:
        """A search with its trials, the newest of that name. Raises NotFound."""
        ...

    def stop_run(self, run: str) -> RunView:
        """Ask for a clean stop (checkpoint, then end) and return at once. Conflict if it ended."""
        ...

    def resize_run(self, run: str, workers: int) -> RunView:
        """Ask a run that was begun with workers=(low, high) for another number of ranks: it saves,
        and goes on with them. Conflict when it is finished, BadInput for another number."""
        ...

    def resume_run(self, run: str) -> RunView:
        """Go on, detached, with a run that is not finished. Conflict when it is going on."""
        ...

    def fork_run(
        self, origin: str, overrides: Sequence[str] = (), name: str | None = None
    ) -> ForkView:
        """Start a run, detached, from a checkpoint of another: RUN, RUN@STEP or RUN@best.

        overrides  KEY=VALUE of the other one's config
        Raises NotFound, Damaged, BadInput, Conflict (the name is taken); then nothing is changed.
        """
        ...

    def pids(self, run: str | None = None) -> list[Process]:
        """Live processes of one run, or of all runs that are not ended."""
        ...

    def queue(self) -> list[ClaimView]:
        """Runs that hold devices, then those that wait for some, in order of arrival."""
        ...

    def verify_run(self, run: str) -> list[CheckpointVerdict]:
        """Read every checkpoint of a run and compare it with its hashes; newest first."""
        ...

    def checkpoints(self, run: str, verify: bool = False) -> list[CheckpointView]:
        """A run's checkpoints, newest first; `verify` reads them and compares their hashes."""
        ...

    def pin_checkpoint(self, reference: str, note: str = "") -> CheckpointView:
        """Keep RUN@STEP or RUN@best until it is unpinned; again only changes the note."""
        ...

    def unpin_checkpoint(self, reference: str) -> CheckpointView:
        """Let it go with the run's next checkpoint. BadInput when it is not pinned."""
        ...

    def export_checkpoint(self, reference: str, path: str, form: str = "torch") -> ExportView:
        """Write RUN[@STEP] for others: "torch" and "safetensors" are files, "dcp" is a folder."""
        ...

    def import_checkpoint(
        self, name: str, path: str, form: str | None = None, step: int = 0
    ) -> CheckpointView:
        """Make such a file or folder the checkpoint of a new, finished run. Conflict when the name
        is taken."""
        ...

    def adopt(self) -> list[str]:
        """Start again every interrupted run that was detached; returns their ids."""
        ...

    # models
    def models(self, name: str | None = None, limit: int = 100) -> list[VersionView]:
        """Newest first; of one name when it is given."""
        ...

    def model(self, reference: str) -> VersionDetail: ...

    def why(self, reference: str) -> dict[str, Any]:
        """The chain from an alias to the function that made its data.

        `line` says it in one; `steps` has `what`, `name` and `facts` of each.
        """
        ...

    def promote(self, reference: str, alias: str, evaluation: str | None = None) -> Alias:
        """Move an alias. Refused unless an evaluation of exactly that version passed.

        evaluation  its id; default: the newest of that version
        """
        ...

    # evaluations
    def evaluations(self, model: str | None = None, limit: int = 100) -> list[Evaluation]: ...

    def evaluation(self, evaluation_id: str) -> dict[str, Any]:
        """The whole report: `evaluation` (the record), `metrics`, `slices`, `gates`."""
        ...

    # deployments
    def deployments(self) -> list[Deployment]: ...

    def deployment(self, name: str) -> Deployment: ...

    def deploy(self, name: str, model: str) -> Deployment:
        """Want `name` to serve `model`; whoever keeps deployments (`penstock up`) brings it up."""
        ...

    def stop_deployment(self, name: str) -> Deployment:
        """Want it down."""
        ...

    def keep_deployments(self) -> AbstractContextManager[object]:
        """Keep every deployment up, from this process, while the context is open.

        Replicas are drained when it closes; if this process is killed they die with it.
        """
        ...

    # the rest
    def events(
        self, after: int = 0, subject: str | None = None, limit: int = 1000, wait: float = 0.0
    ) -> list[Event]:
        """In commit order, after a cursor; waits up to `wait` seconds for the first one."""
        ...

    def last_event(self) -> int:
        """The newest cursor, 0 when nothing ever happened."""
        ...

    def collect_garbage(self, apply: bool = True) -> dict[str, Any]:
        """Remove what no row and no live writer refers to; with `apply=False` only say what."""
        ...

    def doctor(self) -> list[Check]:
        """Look at the installation, the settings and the machine. Changes nothing, never raises."""
        ...

    def examine(self, tell: Callable[[str], None], patience: float | None = None) -> list[Check]:
        """Try out the stores and every node of the cluster that the settings name; findings of a
        node have its name. Changes nothing, never raises; told what is being done.

        patience  seconds for the answer of a node, after which that is the finding
        """
        ...

    def cluster(self, tell: Callable[[str], None]) -> ClusterView:
        """The nodes of the cluster, and what runs hold of them and wait for; asked again, only
        what is new is read. From rows alone, and saying so, where it does not answer."""
        ...

    def close(self) -> None: ...
