"""Alembic's entry: runs the steps on the connection that vistadex.catalog.opening hands over."""

from __future__ import annotations

from alembic import context

from vistadex.catalog.tables import metadata

context.configure(connection=context.config.attributes["connection"], target_metadata=metadata)
context.run_migrations()
