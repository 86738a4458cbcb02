"""Evaluation: suites, predictions, metrics by slice with intervals, gates, verdicts.

A suite is part of the user's script, which every rank imports: what needs Arrow is loaded when it
is asked for.
"""

from __future__ import annotations

import importlib
from typing import TYPE_CHECKING, Any

from penstock.evaluation.suite import Gate, Suite, at_least, classification, not_worse

if TYPE_CHECKING:
    from penstock.evaluation.report import Report
    from penstock.evaluation.verdict import evaluate, predictions, report_of

__all__ = [
    "Gate",
    "Report",
    "Suite",
    "at_least",
    "classification",
    "evaluate",
    "not_worse",
    "predictions",
    "report_of",
]
_LATER = {
    "Report": "report",
    "evaluate": "verdict",
    "predictions": "verdict",
    "report_of": "verdict",
}


def __getattr__(name: str) -> Any:
    if name not in _LATER:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    return getattr(importlib.import_module(f"{__name__}.{_LATER[name]}"), name)
