"""How Alembic reaches the database: over the connection that `schema.migrate` hands in.

The caller's transaction is open already, so that a migration is whole or did not happen.
"""

from __future__ import annotations

from alembic import context

from penstock.meta.tables import metadata

context.configure(
    connection=context.config.attributes["connection"],
    target_metadata=metadata,
    render_as_batch=True,
)
with context.begin_transaction():
    context.run_migrations()
