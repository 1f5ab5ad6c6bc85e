"""What this process is, what it is ready for, and what detectors and models there are."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from facescreen import __version__
from facescreen.config import DetectorName, ModelName, Settings
from facescreen.db import blacklist
from facescreen.db.connection import Database
from facescreen.domain.distances import Metric
from facescreen.domain.screening import Policy
from facescreen.recognition.catalog import DETECTORS, MODELS, DetectorSpec, ModelSpec, default_threshold
from facescreen.recognition.weights import WeightStore
from facescreen.services.screening import ScreeningDefaults, ScreeningOptions, resolve_policy


@dataclass(frozen=True, slots=True)
class Health:
    """What this process answers with, and how much it knows; ``policy`` is that of a request that chooses nothing."""

    version: str
    backend: str
    detector: DetectorName
    model: ModelName
    policy: Policy
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
    """Answers for operators; changes nothing."""

    def __init__(
        self, *, settings: Settings, defaults: ScreeningDefaults, database: Database, weights: WeightStore
    ) -> None:
        self._settings = settings
        self._defaults = defaults
        self._database = database
        self._weights = weights

    async def health(self) -> Health:
        """The state of the service; it takes a read of the database."""
        async with self._database.read() as connection:
            entries, images = await blacklist.count(connection)
            version = await blacklist.version(connection)
        return Health(
            version=__version__,
            backend=self._settings.face_processing_backend,
            detector=self._defaults.detector,
            model=self._defaults.model,
            policy=resolve_policy(ScreeningOptions(), self._defaults),
            list_version=version,
            entries=entries,
            reference_images=images,
        )

    def installed(self) -> Installed:
        """Every detector and model with what is missing to use it; this looks at files."""
        return Installed(
            [(spec, self._weights.missing(spec)) for spec in DETECTORS.values()],
            [
                InstalledModel(
                    spec, {metric: default_threshold(name, metric) for metric in Metric}, self._weights.missing(spec)
                )
                for name, spec in MODELS.items()
            ],
        )
