"""Spark: a DataFrame becomes a version, a version is read as a DataFrame.

Through Spark's Python Data Source API (`source.py`), which runs in Spark's own processes: executors
write and read blobs; the script alone opens the meta store. Shards that Spark can read by itself it
does (`parquet.py`). `writing.py` and `reading.py` are the script's sides of it, `session.py` what a
session must be, `types.py` and `filters.py` translate.
"""
