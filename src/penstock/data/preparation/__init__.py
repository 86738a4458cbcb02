"""Preparation: raw files, a dataset version or a function's rows become a new dataset version."""

from penstock.data.preparation.from_function import Prepared, prepare

__all__ = ["Prepared", "prepare"]
