"""Alembic's entry: runs the revisions on the connection that `migrations.upgrade` hands over."""

from __future__ import annotations

from alembic import context

from countermark_server import db

connection = context.config.attributes["connection"]
context.configure(connection=connection, target_metadata=db.metadata, render_as_batch=True)
with context.begin_transaction():
    context.run_migrations()
