"""Run by Alembic on the connection that `ageveil.service.database.migrate` gives."""

from alembic import context

from ageveil.service.database import metadata

context.configure(connection=context.config.attributes["connection"], target_metadata=metadata)
with context.begin_transaction():
    context.run_migrations()
