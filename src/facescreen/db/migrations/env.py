"""Alembic's entry point: ``alembic`` and ``facescreen migrate`` both run this."""

import os
from contextlib import suppress
from typing import Any, Literal

from alembic import context
from sqlalchemy import Connection, create_engine, event, make_url

from facescreen.config import load_settings
from facescreen.db.schema import UtcDateTime, metadata

url = make_url(context.config.get_main_option("sqlalchemy.url") or load_settings().database_url)
# SQLite would let everybody read what it makes.
with suppress(OSError):
    os.close(os.open(url.database or "", os.O_CREAT | os.O_CLOEXEC, mode=0o600))
engine = create_engine(url.set(drivername=url.get_backend_name()))


def render(kind: str, item: object, _context: object) -> str | Literal[False]:
    """Migrations name only SQLAlchemy's own types, so that they outlive ours."""
    return "sa.DateTime()" if kind == "type" and isinstance(item, UtcDateTime) else False


@event.listens_for(engine, "connect")
def on_connect(connection: Any, _record: object) -> None:  # noqa: ANN401 - DBAPI connection without a public type
    connection.isolation_level = None  # transactions are begun by `on_begin` alone
    connection.execute("PRAGMA foreign_keys=OFF")  # replacing a table by its copy would delete whatever names it
    connection.execute("PRAGMA secure_delete=ON")  # or what the old table held could be read for ever


@event.listens_for(engine, "begin")
def on_begin(connection: Connection) -> None:
    connection.exec_driver_sql("BEGIN IMMEDIATE")


# One transaction around it all: sqlite3 begins none for a change of schema, and half of one cannot be done again.
with engine.connect() as connection, connection.begin():
    context.configure(
        connection=connection,
        target_metadata=metadata,
        render_as_batch=True,
        compare_type=True,
        render_item=render,
    )
    context.run_migrations()
engine.dispose()
