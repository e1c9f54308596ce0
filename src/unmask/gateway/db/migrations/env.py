"""Run by Alembic, never imported: migrations on the connection that ``migrating.py`` gives."""

from alembic import context

context.configure(connection=context.config.attributes["connection"])
context.run_migrations()
