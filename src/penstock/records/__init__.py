"""The frozen nouns that rooms hand to each other, and their one JSON form."""

from penstock.records.claims import Claim
from penstock.records.codec import from_json, to_data, to_json
from penstock.records.deployments import Deployment
from penstock.records.evaluations import Evaluation
from penstock.records.events import Event
from penstock.records.leases import Lease
from penstock.records.memories import Memory
from penstock.records.references import Reference
from penstock.records.runs import Attempt, Checkpoint, Run, RunState
from penstock.records.units import Unit
from penstock.records.versions import Alias, Kind, Tag, Version

__all__ = [
    "Alias",
    "Attempt",
    "Checkpoint",
    "Claim",
    "Deployment",
    "Evaluation",
    "Event",
    "Kind",
    "Lease",
    "Memory",
    "Reference",
    "Run",
    "RunState",
    "Tag",
    "Unit",
    "Version",
    "from_json",
    "to_data",
    "to_json",
]
