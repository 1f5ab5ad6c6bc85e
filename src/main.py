"""``uvicorn src.main:app`` from the repository root."""

from facescreen.main import app

__all__ = ["app"]
