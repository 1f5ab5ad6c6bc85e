"""What a service with the default models imports."""

import re
import subprocess
import sys
from pathlib import Path

from facescreen.config import Settings

PROGRAM = """
import asyncio, sys
from facescreen.config import Settings
from facescreen.factory import open_services, start
from facescreen.services.screening import SourceImage
from facescreen.services.thresholds import ScreeningOptions

async def main(url, folder, sample):
    settings = Settings(_env_file=None, database_url=url, blacklist_db_path=f"{folder}/list",
                        processed_images_output_dir=f"{folder}/copies", deepface_home=folder)
    async with open_services(settings) as services:
        await start(services)
        with open(sample, "rb") as file:
            (result,) = await services.screening.screen([SourceImage(file.read(), "sample")], ScreeningOptions())
        assert len(result.faces) == 1

asyncio.run(main(*sys.argv[1:]))
"""
UNWANTED = {"tensorflow", "keras", "torch", "deepface", "dlib", "mtcnn", "retinaface", "matplotlib", "scipy", "pandas"}
SAMPLE = Path(__file__).parents[1] / "samples/astronaut.jpg"


def test_the_default_models_need_no_heavy_library(settings: Settings, tmp_path: Path) -> None:
    done = subprocess.run(
        [sys.executable, "-X", "importtime", "-c", PROGRAM, settings.database_url, str(tmp_path / "run"), str(SAMPLE)],
        capture_output=True,
        text=True,
        check=False,
        timeout=120,
    )
    assert done.returncode == 0, done.stderr[-2000:]
    imported = {name.split(".")[0] for name in re.findall(r"^import time:.*\| +(\S+)$", done.stderr, re.MULTILINE)}
    assert "onnxruntime" in imported
    assert imported.isdisjoint(UNWANTED)
