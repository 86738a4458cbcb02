"""What a process imports before it opens a store on SQLite; for processes that are forked warm.

No engine, no connection: a connection never crosses a fork.
"""

import sqlalchemy.dialects.sqlite.pysqlite  # noqa: F401

import penstock.meta.sqlite  # noqa: F401
