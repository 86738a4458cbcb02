"""The node's cache of shards: mapped, shared by its processes, bounded, verified, repaired."""

from penstock.data.cache.counters import Counters, node_counters
from penstock.data.cache.node import ShardCache
from penstock.data.cache.opened import Opened
from penstock.data.cache.space import counters_here

__all__ = ["Counters", "Opened", "ShardCache", "counters_here", "node_counters"]
