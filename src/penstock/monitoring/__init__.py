"""What the signals of runs mean: where their seconds went. Reads them, emits none."""

from penstock.monitoring.account import Account, Accountant, Watched
from penstock.monitoring.ledger import CLASSES, Ledger, RankLedger, ledger
from penstock.monitoring.live import Live, RankNow, live
from penstock.monitoring.throughput import Throughput, throughput
from penstock.monitoring.told import Told, Tracks

__all__ = [
    "CLASSES",
    "Account",
    "Accountant",
    "Ledger",
    "Live",
    "RankLedger",
    "RankNow",
    "Throughput",
    "Told",
    "Tracks",
    "Watched",
    "ledger",
    "live",
    "throughput",
]
