"""Evaluation: suites, predictions, metrics by slice with intervals, gates, verdicts."""

from penstock.evaluation.suite import Gate, Suite, at_least, classification, not_worse
from penstock.evaluation.verdict import Report, evaluate, predictions, report

__all__ = [
    "Gate",
    "Report",
    "Suite",
    "at_least",
    "classification",
    "evaluate",
    "not_worse",
    "predictions",
    "report",
]
