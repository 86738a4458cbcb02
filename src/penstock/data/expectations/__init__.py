"""Expectations: what a version looks like, kept in a file, and asked of the next one.

expectations = infer(blobs, manifest, "digits@3")     # from a version
text = expectations.to_toml()                         # a file that people edit
violations = check(blobs, manifest, Expectations.from_toml(text))
refuse(violations, "dataset digits")                  # raises when one of them refuses

For people: `ps.open(…).expectations()` and `.check(…)`, `penstock data expect` and `check`.
"""

from __future__ import annotations

from penstock.data.expectations.checking import Checker, check, check_manifest, check_tables
from penstock.data.expectations.inference import infer
from penstock.data.expectations.model import (
    SEVERITIES,
    Expectation,
    Expectations,
    Place,
    Severity,
    Violation,
    digest_of,
    load,
    outcome,
    refuse,
)
from penstock.data.expectations.once import Held, hold

__all__ = [
    "SEVERITIES",
    "Checker",
    "Expectation",
    "Expectations",
    "Held",
    "Place",
    "Severity",
    "Violation",
    "check",
    "check_manifest",
    "check_tables",
    "digest_of",
    "hold",
    "infer",
    "load",
    "outcome",
    "refuse",
]
