"""Find every face in one image."""

from facescreen.config import DetectorName
from facescreen.domain.faces import Face
from facescreen.images.sources import ImageSources
from facescreen.pool import WorkPool
from facescreen.services.intake import Intake
from facescreen.services.matching import Matcher
from facescreen.services.thresholds import ScreeningOptions


class DetectionService:
    """Answers where the faces are and nothing else; keeps nothing."""

    def __init__(self, *, sources: ImageSources, intake: Intake, pool: WorkPool, matcher: Matcher) -> None:
        self._sources = sources
        self._intake = intake
        self._pool = pool
        self._matcher = matcher

    async def detect(self, image: str, detector: DetectorName | None) -> tuple[Face, ...]:
        """Every face of the image (path, URL, data URL or base64)."""
        chosen = self._matcher.plan(ScreeningOptions(detector=detector)).detector
        with self._pool.admit(1):
            source = await self._sources.read(image)
            return (await self._intake.detect(source.data, chosen)).faces
