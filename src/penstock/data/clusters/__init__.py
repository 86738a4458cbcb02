"""Rows that lie on the machines of a cluster become a version without passing through the caller.

The cluster (Spark, Ray) sorts its rows by their key. Each of its tasks writes what it holds as
units into the blob store (`units.py`); the caller gets a description of each, orders them, looks
for keys that come twice, and says which rows each shard has; tasks write the shards; the caller
commits one row (`version.py`). So the order of the rows is that of their keys, whatever the
partitions were, and a task that runs twice writes the same blobs twice.

No task opens the meta store. What a task wrote that nobody committed is rubbish, which garbage
collection removes.
"""
