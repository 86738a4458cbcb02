"""Moving an alias: only on evidence, only if nobody moved it meanwhile."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from penstock.base.errors import BadInput, Conflict, Refused
from penstock.records import Alias, Evaluation, Reference, Version
from penstock.records.references import check_name

if TYPE_CHECKING:
    from penstock.jobs.stores import Stores
    from penstock.meta.port import Reader


def promote(stores: Stores, reference: str | Version, alias: str, evidence: Any) -> Alias:
    """Point `alias` at a model version, and record why, in one transaction.

    reference  e.g. "digits-cnn@2"; "digits-cnn" means its newest version
    evidence   an evaluation: its id, its record, or a report that has it as `.evaluation`

    An alias that already points there stays as it is. Raises Refused when the evaluation is of
    another version, did not pass (the gates are named), or compared with a version that the alias
    no longer points at; Conflict when somebody else moves the alias at the same time; NotFound.
    """
    check_name(alias, "alias")
    if alias.isdigit():
        raise BadInput(f'"{alias}" cannot be an alias', "Numbers are versions; use a word.")
    with stores.meta.read() as meta:
        named = reference.reference if isinstance(reference, Version) else reference
        version = meta.get_version("model", named)
        proof = _evaluation(meta, evidence)
        current = meta.find_alias("model", version.name, alias)
    _refuse_other(version, proof)
    _refuse_failed(version, alias, proof)
    if current is not None and current.version == version.version:
        return current
    _refuse_stale(version, alias, current, proof)
    try:
        with stores.meta.write() as meta:
            return meta.move_alias(  # and its event "alias.moved", with the reason
                "model",
                version.name,
                alias,
                version.version,
                expect=None if current is None else current.revision,
                reason={"evaluation": proof.id, "suite": proof.suite},
            )
    except Conflict:
        with stores.meta.read() as meta:
            found = meta.find_alias("model", version.name, alias)
        if found is not None and found.version == version.version:
            return found  # somebody else, or our own write whose answer was lost, did the same
        raise


def _evaluation(meta: Reader, evidence: Any) -> Evaluation:
    """The row as it is stored, whatever form the evidence has: an object cannot claim a verdict."""
    found = getattr(evidence, "evaluation", evidence)
    if isinstance(found, Evaluation):
        found = found.id
    if not isinstance(found, str):
        raise BadInput(
            f"evidence is an evaluation or its report, not {type(evidence).__name__}",
            "Pass what ps.evaluate returned, or an evaluation's id.",
        )
    return meta.get_evaluation(found)


def _refuse_other(version: Version, proof: Evaluation) -> None:
    if proof.model != version.reference:
        raise Refused(
            f"evaluation {proof.id} is of {proof.model}, not of {version.reference}",
            f"Evaluate {version.reference}, then promote it with that report.",
            evaluation=proof.id,
            evaluated=proof.model,
            model=version.reference,
        )


def _refuse_failed(version: Version, alias: str, proof: Evaluation) -> None:
    if proof.passed:
        return
    gates = [gate for gate in proof.summary.get("gates", []) if gate["outcome"] not in _FINE]
    said = "; ".join(str(gate["says"]) for gate in gates)
    raise Refused(
        f"{version.reference} does not become {alias}: "
        + (said or f'suite "{proof.suite}" has no gate that it passed'),
        "Train a better model, or evaluate it on more samples; the gates are in the suite."
        if gates
        else "Give the suite a gate, such as at_least(…), and evaluate again.",
        model=version.reference,
        alias=alias,
        evaluation=proof.id,
        gates=gates,
    )


_FINE = ("passed", "skipped")


def _refuse_stale(version: Version, alias: str, current: Alias | None, proof: Evaluation) -> None:
    """A comparison with what the alias used to be says nothing about what it is now."""
    baseline = proof.summary.get("baseline") or {}
    asked = baseline.get("asked")
    if asked is None or current is None:
        return
    wanted = Reference.parse(asked)
    now = f"{version.name}@{current.version}"
    if (wanted.name, wanted.alias) == (version.name, alias) and baseline.get("resolved") != now:
        was = baseline.get("resolved") or "nothing, as there was no such alias"
        raise Refused(
            f"{alias} is {now} now; evaluation {proof.id} compared {version.reference} with {was}",
            "Evaluate again: the comparison is with what the alias means now.",
            model=version.reference,
            alias=alias,
            evaluation=proof.id,
            compared=baseline.get("resolved"),
            current=now,
        )
