"""Find every face in one image."""

from facescreen.config import DetectorName
from facescreen.domain.faces import Face
from facescreen.domain.trail import Action
from facescreen.images.sources import ImageSources, SourceImage
from facescreen.services.intake import Intake
from facescreen.services.matching import Matcher
from facescreen.services.thresholds import ScreeningOptions
from facescreen.services.trail import TrailService


class DetectionService:
    """Answers where the faces are and nothing else; of the image nothing is kept."""

    def __init__(self, *, sources: ImageSources, intake: Intake, matcher: Matcher, trail: TrailService) -> None:
        self._sources = sources
        self._intake = intake
        self._matcher = matcher
        self._trail = trail

    async def detect(self, image: str | SourceImage, detector: DetectorName | None) -> tuple[Face, ...]:
        """Every face of the image: a path, URL, data URL or base64 as text, or bytes that are at hand."""
        chosen = self._matcher.plan(ScreeningOptions(detector=detector)).detector
        source = await self._sources.read(image) if isinstance(image, str) else image
        detected = await self._intake.detect(source.data, chosen)
        await self._trail.note(Action.DETECT)
        return detected.faces
