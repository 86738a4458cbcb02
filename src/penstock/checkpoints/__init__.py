"""State of a training step to durable, verifiable bytes, and back.

rank        plan(...), Copy(plan, buffer, later).now()   the only part a training step waits for
            Copy.take_turn                               beside the next step
sidecar     persist(buffer, index, blobs) -> part        beside it
controller  assemble(...) -> manifest; newest_whole; to_drop
rank        load(blobs, manifest, rank, world_size, onto)

A distributed tensor (DTensor) is written by the ranks that hold it, each byte once, and loads at
any other sharding, or whole.

Importing this loads neither torch nor NumPy.
"""

from penstock.checkpoints.copying import Copy
from penstock.checkpoints.fingerprint import weights_digest
from penstock.checkpoints.integrity import Damage, Found, newest_whole, verify
from penstock.checkpoints.layout import Plan, plan
from penstock.checkpoints.manifest import (
    Manifest,
    assemble,
    parse_manifest,
    read_manifest,
    relabelled,
)
from penstock.checkpoints.near import Near
from penstock.checkpoints.reader import Loaded, State, load, load_newest
from penstock.checkpoints.retain import to_drop
from penstock.checkpoints.sharding import Sharding, is_distributed, sharding_of
from penstock.checkpoints.sidecar import handle
from penstock.checkpoints.slots import Slots, index_of, room, seal
from penstock.checkpoints.staged import Note, Staged
from penstock.checkpoints.state import shardings_in
from penstock.checkpoints.uploads import Uploads
from penstock.checkpoints.writer import persist

__all__ = [
    "Copy",
    "Damage",
    "Found",
    "Loaded",
    "Manifest",
    "Near",
    "Note",
    "Plan",
    "Sharding",
    "Slots",
    "Staged",
    "State",
    "Uploads",
    "assemble",
    "handle",
    "index_of",
    "is_distributed",
    "load",
    "load_newest",
    "newest_whole",
    "parse_manifest",
    "persist",
    "plan",
    "read_manifest",
    "relabelled",
    "room",
    "seal",
    "sharding_of",
    "shardings_in",
    "to_drop",
    "verify",
    "weights_digest",
]
