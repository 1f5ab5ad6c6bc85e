"""``uvicorn tests.privacy.loud:app``: the service as anybody may start it, with a backend that tells what it sees."""

import asyncio
import logging
import os
import warnings

from facescreen.config import DetectorName, load_settings
from facescreen.domain.faces import Face, Pixels
from facescreen.logs import configure_logs, set_libraries_apart
from facescreen.main import create_app
from tests.painted import PaintedBackend

SECRET = "ZqPlanted"
"""What every planted value holds, in one case or another."""

BREAKING = (200, 20, 200)
"""Colour of a face that breaks the backend."""


class LoudBackend(PaintedBackend):
    """Says what it should not in every way that a library can."""

    async def detect(self, image: Pixels, detector: DetectorName) -> tuple[Face, ...]:
        told = f"{SECRET} saw {image[0, 0].tolist()}"
        for name in ("botocore.endpoint", "httpcore.http11", "urllib3.connectionpool", "PIL.PngImagePlugin", "asyncio"):
            for level in (logging.DEBUG, logging.INFO, logging.WARNING, logging.ERROR):
                logging.getLogger(name).log(level, "%s in %s", told, name)
        warnings.warn(told, RuntimeWarning, stacklevel=1)
        os.write(2, f"{told}\n".encode())  # as libraries in C do
        asyncio.get_running_loop().call_exception_handler({"message": told, "exception": ValueError(told)})
        faces = await super().detect(image, detector)
        if any(abs(image[f.box.y + 5, f.box.x + 5].astype(int) - BREAKING).max() < 10 for f in faces):
            raise RuntimeError(told)
        return faces


def __getattr__(name: str) -> object:
    """``app`` is made when a server asks for it."""
    if name != "app":
        raise AttributeError(name)
    settings = load_settings()
    set_libraries_apart()
    configure_logs(settings.log_level)
    warnings.simplefilter("always")
    return create_app(settings, LoudBackend())
