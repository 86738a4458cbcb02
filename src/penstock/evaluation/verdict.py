"""Suite × model version × dataset version -> a verdict, computed once and then remembered."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any

import pyarrow as pa

from penstock.base.errors import BadInput, NotFound
from penstock.base.hashing import digest_json, short
from penstock.base.ids import new_id
from penstock.base.process import Identity
from penstock.data import Manifest, read_manifest, resolve
from penstock.evaluation.fit import Fit, fit
from penstock.evaluation.forecast import CODE, Forecast, compare, forecast, read_parts
from penstock.evaluation.gates import Comparison, Outcome, judge, passed
from penstock.evaluation.report import (
    FORMAT,
    Baseline,
    Findings,
    Report,
    Slice,
    read_report,
)
from penstock.evaluation.suite import Suite
from penstock.records import Evaluation, Reference, Version, to_data, to_json
from penstock.registry import read_package

if TYPE_CHECKING:
    from penstock.jobs.stores import Stores
    from penstock.meta.port import Reader


def evaluate(
    stores: Stores,
    suite: Suite,
    model: str | Version,
    baseline: str | None = None,
    *,
    workers: int = 0,
    fresh: bool = False,
    on_progress: Callable[..., Any] | None = None,
) -> Report:
    """Evaluate a model version, or return what is known: the same suite, model, data and baseline
    give the same evaluation.

    model     reference, e.g. "digits-cnn@2"; "digits-cnn" means its newest version
    baseline  reference to compare with, for `not_worse`. An alias that does not exist yet, or that
              is this very version: no comparison, said so
    workers   processes for the map; 0: in this one
    fresh     compute everything again, and commit it as another evaluation

    Raises NotFound (nearest offered), BadInput (see `evaluation.fit`), what a unit raises, and
    what the stores raise.
    """
    plan = _plan(stores, suite, model, baseline)
    if not fresh:
        with stores.meta.read() as meta:
            known = meta.find_evaluation(plan.key)
        if known is not None:
            why = f"reused evaluation {known.id} of {plan.model.reference}: nothing changed"
            return read_report(stores.blobs, known, why)
    with stores.meta.read() as meta:
        why = "fresh=True" if fresh else _what_changed(meta, plan)
    with stores.meta.write() as meta:
        pin = meta.pin(str(Identity.mine()))
    try:
        findings = _measure(stores, plan, workers, fresh, on_progress)
        return _commit(stores, plan, findings, fresh, why)
    finally:
        with stores.meta.write() as meta:
            meta.unpin(pin)


def report_of(stores: Stores, evaluation: str | Evaluation) -> Report:
    """The report of an evaluation, by its id or record."""
    return read_report(stores.blobs, _record(stores, evaluation))


def predictions(stores: Stores, evaluation: str | Evaluation | Report) -> pa.Table:
    """Every sample's prediction, in the order of the split; `evaluation.predict.write` has the
    columns."""
    found = evaluation.evaluation if isinstance(evaluation, Report) else evaluation
    stored = read_report(stores.blobs, _record(stores, found)).findings
    return read_parts(stores.blobs, stored.predictions)


def _record(stores: Stores, evaluation: str | Evaluation) -> Evaluation:
    if isinstance(evaluation, Evaluation):
        return evaluation
    with stores.meta.read() as meta:
        return meta.get_evaluation(evaluation)


@dataclass(frozen=True, slots=True)
class _Plan:
    """Everything resolved and found to fit, before anything runs."""

    suite: Suite
    model: Version
    dataset: str  # pinned, with its split
    manifest: Manifest
    split: str
    fitting: Fit
    baseline: Baseline | None
    other: Version | None  # what the baseline resolved to
    other_fit: Fit | None

    @property
    def depends(self) -> dict[str, Any]:
        """What the evaluation depends on, in words that people know."""
        return {
            "suite": short(digest_json({**to_data(self.suite), "data": self.dataset}), 64),
            "model": [self.model.reference, self.model.digest],
            "data": [self.dataset, self.manifest.digest],
            "baseline": [self.other.reference, self.other.digest] if self.other else None,
            "evaluation code": [FORMAT, CODE],
        }

    @property
    def key(self) -> str:
        asked = None if self.baseline is None else self.baseline.asked
        return digest_json({"what": "evaluation", "asked": asked, **self.depends})


def _plan(stores: Stores, suite: Suite, model: str | Version, baseline: str | None) -> _Plan:
    named = model.reference if isinstance(model, Version) else str(model)
    with stores.meta.read() as meta:
        version = meta.get_version("model", named)
        dataset, split = resolve(meta, suite.data)
        base, other = _resolve_baseline(meta, baseline, version)
    manifest = read_manifest(stores.blobs, dataset.digest)
    split = _split(suite, manifest, split)

    def fits(each: Version) -> Fit:
        signature = read_package(stores.blobs, each.digest).signature
        return fit(suite, manifest, split, signature, each.reference)

    return _Plan(
        suite=suite,
        model=version,
        dataset=f"{dataset.reference}:{split}",
        manifest=manifest,
        split=split,
        fitting=fits(version),
        baseline=base,
        other=other,
        other_fit=None if other is None else fits(other),
    )


def _split(suite: Suite, manifest: Manifest, split: str | None) -> str:
    """The split as asked, or the only one."""
    if split is None and len(manifest.splits) > 1:
        raise BadInput(
            f'suite {suite.name} evaluates on "{suite.data}", which has {len(manifest.splits)} '
            "splits",
            f"Name one: {', '.join(f'{suite.data}:{name}' for name in manifest.splits)}.",
            splits=list(manifest.splits),
        )
    return manifest.split(split if split is not None else next(iter(manifest.splits))).name


def _resolve_baseline(
    meta: Reader, asked: str | None, model: Version
) -> tuple[Baseline | None, Version | None]:
    """No model of that name is a mistake; no alias of that name, yet, is a start."""
    if asked is None:
        return None, None
    wanted = Reference.parse(asked)
    try:
        found = meta.get_version("model", asked)
    except NotFound:
        if wanted.alias is None or meta.find_version("model", wanted.name) is None:
            raise
        return Baseline(asked, None, f"there is no {asked} yet"), None
    if found.reference == model.reference:
        return Baseline(asked, None, f"{asked} is {found.reference} itself"), None
    return Baseline(asked, found.reference), found


def _what_changed(meta: Reader, plan: _Plan) -> str:
    """Why an evaluation is computed: what differs from the suite's newest one."""
    newest = next(
        (each for each in meta.evaluations(limit=200) if each.suite == plan.suite.name), None
    )
    if newest is None:
        return f"suite {plan.suite.name} was never evaluated"
    before = newest.summary.get("depends", {})
    changed = [name for name, value in plan.depends.items() if before.get(name) != value]
    return f"{' and '.join(changed) or 'the baseline'} changed since evaluation {newest.id}"


def _measure(
    stores: Stores,
    plan: _Plan,
    workers: int,
    fresh: bool,
    on_progress: Callable[..., Any] | None,
) -> Findings:
    def run(version: Version, fitting: Fit, again: bool) -> Forecast:
        return forecast(
            stores,
            plan.suite,
            version,
            plan.manifest,
            plan.split,
            fitting,
            workers=workers,
            fresh=again,
            on_progress=on_progress,
        )

    ours = run(plan.model, plan.fitting, fresh)
    comparison: Comparison | None = None
    if plan.other is not None and plan.other_fit is not None:
        theirs = run(plan.other, plan.other_fit, False)
        comparison = compare(stores.blobs, ours, theirs, plan.other.reference)
    metrics = ours.tally.metrics()
    no_comparison = _no_comparison(plan.baseline)
    gates = [judge(gate, metrics, comparison, no_comparison) for gate in plan.suite.gates]
    slices = tuple(Slice(each.column, each.value, each.tally.metrics()) for each in ours.slices)
    return Findings(
        format=FORMAT,
        suite=replace(plan.suite, data=plan.dataset),
        model=plan.model.reference,
        dataset=plan.dataset,
        rows=ours.tally.n,
        metrics=metrics,
        slices=slices,
        worst=_worst(slices),
        gates=tuple(gates),
        passed=passed(gates),
        baseline=plan.baseline,
        predictions=ours.parts,
        not_finite=ours.tally.n - ours.tally.loss.n,
    )


def _no_comparison(baseline: Baseline | None) -> tuple[Outcome, str]:
    """A baseline that was not asked for blocks: leaving it out must not open the gate."""
    if baseline is None:
        return "undecided", "no baseline was given: evaluate(…, baseline=…)"
    return "skipped", baseline.why


def _worst(slices: tuple[Slice, ...]) -> int | None:
    """Lowest accuracy; of equals the one whose interval ends lower, which has more samples."""
    found = [each.metrics["accuracy"] for each in slices]
    order = [(each.value, each.high, at) for at, each in enumerate(found)]
    return min(order)[2] if order else None


def _commit(stores: Stores, plan: _Plan, findings: Findings, fresh: bool, why: str) -> Report:
    digest = stores.blobs.put(to_json(findings))
    key = digest_json([plan.key, new_id()]) if fresh else plan.key
    refs = [digest, *(part.digest for part in findings.predictions)]
    with stores.meta.write() as meta:
        wanted = Evaluation(
            id=new_id("eval"),
            key=key,
            suite=plan.suite.name,
            model=findings.model,
            dataset=findings.dataset,
            digest=digest,
            passed=findings.passed,
            created_at=meta.now(),
            summary=_summary(plan, findings),
        )
        kept = meta.add_evaluation(wanted, refs)  # and its event; or what was first, meanwhile
    return Report(kept, findings, False, f"evaluated {findings.model}: {why}")


def _summary(plan: _Plan, findings: Findings) -> dict[str, Any]:
    """For lists, and for `promote`: gates and what the baseline was."""
    worst = None if findings.worst is None else to_data(findings.slices[findings.worst])
    baseline = None if findings.baseline is None else to_data(findings.baseline)
    gates = [{**to_data(each), "gate": str(each.gate)} for each in findings.gates]
    return {
        "rows": findings.rows,
        "metrics": to_data(findings.metrics),
        "worst": worst,
        "gates": gates,
        "baseline": baseline,
        "not_finite": findings.not_finite,
        "depends": plan.depends,
    }
