"""Spark: a DataFrame becomes a version, a version is read as a DataFrame.

Both through Spark's Python Data Source API (`source.py`), which runs in Spark's own processes:
executors write and read blobs; the script alone opens the meta store. `writing.py` and `reading.py`
are the script's sides of it, `session.py` what a session must be, `types.py` and `filters.py`
translate.
"""
