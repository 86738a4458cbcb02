"""Why a model is where it is: the chain from an alias down to the function that made its data."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, Literal

from penstock.base.errors import NotFound
from penstock.blobs.port import Blobs
from penstock.records import Alias, Reference, Run, Version, to_data
from penstock.registry.manifest import read_package

if TYPE_CHECKING:
    from penstock.meta.port import Reader

What = Literal["alias", "model", "evaluation", "run", "dataset", "function"]


@dataclass(frozen=True, slots=True)
class Step:
    """One link. `facts` is JSON-able: ids, digests, times, verdicts, commits."""

    what: What
    name: str
    facts: dict[str, Any] = field(default_factory=dict)


@dataclass(frozen=True, slots=True)
class Lineage:
    """The steps from the asked reference down; what was forgotten or never known is missing."""

    reference: str
    steps: tuple[Step, ...]

    def line(self) -> str:
        """One line: `production <- base <- digits@1 <- make_digits (git 3ac1e0)`.

        Several data sets, or functions, of one run stand side by side with "+". What a run was
        forked from, or had its first weights from, follows it: `base-fork-1 <- base@2000`.
        """
        shown: list[str] = []
        previous: What | None = None
        for step in self.steps:
            if step.what == "evaluation" or (step.what == "model" and previous == "alias"):
                continue  # the line tells where it came from; these are in `steps`
            text = _text(step)
            if step.what == previous and step.what != "run":
                if text not in shown[-1].split(" + "):
                    shown[-1] += f" + {text}"
            else:
                shown.append(text)
            previous = step.what
        return " <- ".join(shown)


def why(reader: Reader, blobs: Blobs, reference: str) -> Lineage:
    """Follow a model reference down. Raises NotFound, which offers the nearest."""
    version = reader.get_version("model", reference)
    package = read_package(blobs, version.digest)
    wanted = Reference.parse(reference)
    steps: list[Step] = []
    alias = reader.find_alias("model", version.name, wanted.alias) if wanted.alias else None
    if alias is not None:
        steps.append(_alias(alias))
    steps.append(_model(version))
    if alias is not None and (proof := alias.reason.get("evaluation")):
        steps += _evaluation(reader, proof)
    run, data = _run(reader, version, package.lineage)
    steps += run
    datasets = [found for text in data if (found := _find(reader, text)) is not None]
    steps += [_dataset(each) for each in datasets]
    steps += [step for each in datasets for step in _function(blobs, each)]
    return Lineage(reference, tuple(steps))


def _text(step: Step) -> str:
    commit = step.facts.get("git")
    return f"{step.name} (git {commit})" if step.what == "function" and commit else step.name


def _alias(alias: Alias) -> Step:
    facts = {"version": alias.version, "moved_at": alias.moved_at, "reason": alias.reason}
    return Step("alias", alias.alias, facts)


def _model(version: Version) -> Step:
    facts = {"digest": version.digest, "created_at": version.created_at}
    return Step("model", version.reference, {**facts, "producer": version.producer})


def _evaluation(reader: Reader, evaluation_id: str) -> list[Step]:
    try:
        found = reader.get_evaluation(evaluation_id)
    except NotFound:
        return []
    facts = {
        "suite": found.suite,
        "dataset": found.dataset,
        "passed": found.passed,
        "digest": found.digest,
        **found.summary,
    }
    return [Step("evaluation", found.id, facts)]


def _run(reader: Reader, version: Version, lineage: dict[str, Any]) -> tuple[list[Step], list[str]]:
    """The run that published it, and the dataset versions that it read.

    The run's row knows best; where it is gone, the package's own lineage still tells.
    """
    run_id = version.producer.removeprefix("run/").split("/")[0]
    run = reader.find_run(run_id) if version.producer.startswith("run/") else None
    if run is None:
        data = lineage.get("data") or {}
        told = [lineage["run"]] if lineage.get("run") else []
        known = {key: value for key, value in lineage.items() if key != "run"}
        return [Step("run", str(each), known) for each in told], _pinned(data)
    facts = {
        "id": run.id,
        "state": run.state,
        "entry": run.spec.get("entry"),
        "git": run.spec.get("git"),
        "source": run.source,
        "data": run.data,
        "step": lineage.get("step"),
    }
    data = _pinned(run.data or lineage.get("data") or {})
    older, more = _beginning(reader, run, {run.id})
    return [Step("run", run.name, facts), *older], list(dict.fromkeys([*data, *more]))


def _beginning(reader: Reader, run: Run, seen: set[str]) -> tuple[list[Step], list[str]]:
    """The run that it was forked from, or whose weights it began with (or the model version), and
    so on; and what those read. Of one whose row is gone, what this row tells."""
    forked, initial = run.spec.get("forked_from"), run.spec.get("init_from") or {}
    how, origin = ("forked", forked) if forked else ("init_from", initial)
    if origin.get("reference"):
        return _published(reader, origin["reference"], seen)
    if not origin.get("run"):
        return [], []
    facts = {"id": origin["run"], "step": origin["step"], "how": how}
    parent = reader.find_run(origin["run"])
    if parent is None or parent.id in seen:
        return [Step("run", f"{origin['name']}@{origin['step']}", facts)], []
    facts |= {"state": parent.state, "source": parent.source, "data": parent.data}
    older, data = _beginning(reader, parent, seen | {parent.id})
    step = Step("run", f"{origin['name']}@{origin['step']}", facts)
    return [step, *older], [*_pinned(parent.data), *data]


def _published(reader: Reader, reference: str, seen: set[str]) -> tuple[list[Step], list[str]]:
    """The model version that a run had its first weights from, and the run that published it."""
    try:
        version = reader.get_version("model", reference)
    except NotFound:
        return [Step("model", reference, {"how": "init_from"})], []
    step = Step("model", reference, {**_model(version).facts, "how": "init_from"})
    run_id = version.producer.removeprefix("run/").split("/")[0]
    parent = reader.find_run(run_id)
    if parent is None or parent.id in seen:
        return [step], []
    facts = {"id": parent.id, "state": parent.state, "source": parent.source, "data": parent.data}
    older, data = _beginning(reader, parent, seen | {parent.id})
    return [step, Step("run", parent.name, facts), *older], [*_pinned(parent.data), *data]


def _pinned(data: Any) -> list[str]:
    """Resolved references without their splits, each once, in order."""
    texts = list(data.values()) if isinstance(data, dict) else list(data)
    bare = []
    for text in texts:
        wanted = Reference.parse(str(text))
        bare.append(str(Reference(wanted.name, wanted.version, wanted.alias)))
    return list(dict.fromkeys(bare))


def _find(reader: Reader, reference: str) -> Version | None:
    try:
        return reader.get_version("dataset", reference)
    except NotFound:
        return None


def _dataset(version: Version) -> Step:
    facts = {"digest": version.digest, "created_at": version.created_at, **version.summary}
    return Step("dataset", version.reference, facts)


def _function(blobs: Blobs, version: Version) -> list[Step]:
    from penstock.data import read_manifest

    made = read_manifest(blobs, version.digest).lineage
    facts: dict[str, Any] = to_data(made)
    facts.pop("parts")  # the digest of the code, which is there, stands for them
    return [Step("function", made.function.rpartition(":")[2], facts)]
