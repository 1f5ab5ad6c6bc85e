"""Alembic's entry point: ``alembic`` and ``facescreen migrate`` both run this."""

from typing import Literal

from alembic import context
from sqlalchemy import create_engine, make_url

from facescreen.config import load_settings
from facescreen.db.schema import UtcDateTime, metadata

url = make_url(context.config.get_main_option("sqlalchemy.url") or load_settings().database_url)
engine = create_engine(url.set(drivername=url.get_backend_name()))


def render(kind: str, item: object, _context: object) -> str | Literal[False]:
    """Migrations name only SQLAlchemy's own types, so that they outlive ours."""
    return "sa.DateTime()" if kind == "type" and isinstance(item, UtcDateTime) else False


with engine.connect() as connection:
    context.configure(
        connection=connection,
        target_metadata=metadata,
        render_as_batch=True,
        compare_type=True,
        render_item=render,
    )
    with context.begin_transaction():
        context.run_migrations()
engine.dispose()
