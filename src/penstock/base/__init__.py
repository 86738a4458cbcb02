"""The ground floor: errors, clock, ids, hashing, units, settings, log, processes.

Imports nothing of Penstock above it and no heavy library, so that every process may import it.
"""
