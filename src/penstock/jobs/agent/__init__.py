"""The agent: owner of one node's processes and shared memory for one run.

It never opens `meta`. It serves its controller by gRPC, talks to ranks and sidecars by
socketpair, and knows nothing of what they compute.
"""
