"""Rows that lie on the machines of a cluster become a version without passing through the caller.

An external merge sort in two rounds. Each task of the cluster (Spark, Ray) writes what it holds as
units into the blob store, each a sorted run (`units.py`, `runs.py`); the caller gets a description
of each and says which parts of which runs hold the rows of a shard (`cuts.py`); tasks merge these
into shards and tell which keys come twice (`shelving.py`, `merging.py`, `repeats.py`); the caller
commits one row (`version.py`). So the order of the rows is that of their keys, whatever the
partitions were, and a task that runs twice writes the same blobs twice.

No task opens the meta store. What a task wrote that nobody committed is rubbish, which garbage
collection removes.
"""
