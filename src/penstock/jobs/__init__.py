"""Processes that may die at any moment, and the few that bring them back.

One run has a controller (the lease, the state machine, all writes to `meta`), an agent per node
(processes and shared memory), an image (a warm process that only forks), ranks and sidecars.
Rooms above hand in a `Work`; nothing here knows what is trained or evaluated.
"""
