"""What this process is, what it is ready for, and what detectors and models there are."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from facescreen import __version__
from facescreen.config import Settings
from facescreen.domain.blacklist import DEFAULT_COLLECTION
from facescreen.domain.distances import EMBEDDING_METRICS, Metric
from facescreen.domain.screening import Policy
from facescreen.recognition.catalog import DETECTORS, MODELS, DetectorSpec, ModelSpec, default_threshold
from facescreen.recognition.weights import WeightStore
from facescreen.services.collections import CollectionService
from facescreen.services.matching import Matcher
from facescreen.services.thresholds import ScreeningOptions


@dataclass(frozen=True, slots=True)
class Health:
    """What this process answers with, and how much it knows.

    Attributes:
        detector, model, policy: of a request that chooses nothing.
        list_version, entries, reference_images: of the default collection.
    """

    version: str
    backend: str
    detector: str
    model: str
    policy: Policy
    collections: int
    list_version: int
    entries: int
    reference_images: int


@dataclass(frozen=True, slots=True)
class InstalledModel:
    """A model, the thresholds of its alignment, and what is missing to use it (``None``: nothing)."""

    spec: ModelSpec
    thresholds: Mapping[Metric, float | None]
    missing: str | None


@dataclass(frozen=True, slots=True)
class Installed:
    """Every detector and model, usable on this machine or not."""

    detectors: Sequence[tuple[DetectorSpec, str | None]]
    models: Sequence[InstalledModel]


class HealthService:
    """Answers for operators; changes nothing.

    Args:
        weights: of this machine, ``None`` where nothing can be chosen.
    """

    def __init__(
        self, *, settings: Settings, matcher: Matcher, collections: CollectionService, weights: WeightStore | None
    ) -> None:
        self._settings = settings
        self._matcher = matcher
        self._collections = collections
        self._weights = weights

    async def health(self) -> Health:
        """The state of the service; it takes a read of the database.

        Raises:
            ThresholdRequiredError: nothing says how near a match has to be.
        """
        default = await self._collections.describe(DEFAULT_COLLECTION)
        plan = self._matcher.plan(ScreeningOptions())
        return Health(
            version=__version__,
            backend=self._settings.face_processing_backend,
            detector=plan.detector_name,
            model=plan.model_name,
            policy=await self._matcher.policy(default.collection, plan),
            collections=len(await self._collections.all()),
            list_version=default.version,
            entries=default.size.entries,
            reference_images=default.size.images,
        )

    def installed(self) -> Installed:
        """Every detector and model with what is missing to use it; this looks at files."""
        if self._weights is None:
            return Installed([], [])
        return Installed(
            [(spec, self._weights.missing(spec)) for spec in DETECTORS.values()],
            [
                InstalledModel(
                    spec,
                    {metric: default_threshold(name, metric) for metric in EMBEDDING_METRICS},
                    self._weights.missing(spec),
                )
                for name, spec in MODELS.items()
            ],
        )
