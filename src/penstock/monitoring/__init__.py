"""What the signals of runs mean: where their seconds went. Reads them, emits none."""

from penstock.monitoring.account import Account, Accountant
from penstock.monitoring.ledger import CLASSES, Ledger, RankLedger, ledger
from penstock.monitoring.told import Told, Tracks

__all__ = [
    "CLASSES",
    "Account",
    "Accountant",
    "Ledger",
    "RankLedger",
    "Told",
    "Tracks",
    "ledger",
]
