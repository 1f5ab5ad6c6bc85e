"""What this process is, what it is ready for, and what detectors and models there are."""

import asyncio
import logging
import time
from collections.abc import Awaitable, Mapping, Sequence
from dataclasses import dataclass

from facescreen import __version__
from facescreen.backends.base import EmbeddingBackend
from facescreen.config import Settings
from facescreen.db.connection import Database
from facescreen.db.key_ring import KeyRing
from facescreen.domain.blacklist import DEFAULT_COLLECTION
from facescreen.domain.distances import EMBEDDING_METRICS, Metric
from facescreen.domain.screening import Policy
from facescreen.errors import FacescreenError
from facescreen.images.folder_store import FolderStore
from facescreen.recognition.catalog import DETECTORS, MODELS, DetectorSpec, ModelSpec, default_threshold
from facescreen.recognition.weights import WeightStore
from facescreen.services.answering import AnsweringModel, Upgrade
from facescreen.services.collections import CollectionService
from facescreen.services.matching import Matcher
from facescreen.services.replica import ListReplica
from facescreen.services.thresholds import ScreeningOptions

logger = logging.getLogger(__name__)

_CHECK_SECONDS = 2.0
_CHECK_HOLDS_SECONDS = 1.0
"""Each probe writes, and anybody may probe."""


@dataclass(frozen=True, slots=True)
class Health:
    """What this process answers with, and how much it knows.

    Attributes:
        detector, model, policy: of a request that chooses nothing.
        list_version, entries, reference_images: of the default collection.
        upgrade: of the lists that another model than the configured one answers for, ``None`` where there are none.
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
    upgrade: Upgrade | None


@dataclass(frozen=True, slots=True)
class Readiness:
    """Whether this process can do its work.

    Attributes:
        database_schema: is the one that this code knows.
        models: weights of the default detector and model are in memory and were run.
        database_writable: a write was committed.
        storage: photos and copies can be written, and the keys of encrypted ones.
        index: holds every change of the default collection that is committed.
        upgrade: as in :class:`Health`; a service is ready during it.
    """

    database_schema: bool
    models: bool
    database_writable: bool
    storage: bool
    index: bool
    upgrade: Upgrade | None


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
        backend, replica, answering: ``None`` where an outside service searches.
        folders: where photos and copies are kept.
        keys: that they are encrypted with, if they are.
        weights: of this machine, ``None`` where nothing can be chosen.
    """

    def __init__(
        self,
        *,
        settings: Settings,
        database: Database,
        matcher: Matcher,
        collections: CollectionService,
        backend: EmbeddingBackend | None,
        replica: ListReplica | None,
        answering: AnsweringModel | None,
        folders: Sequence[FolderStore],
        keys: KeyRing | None,
        weights: WeightStore | None,
    ) -> None:
        self._settings = settings
        self._database = database
        self._backend = backend
        self._replica = replica
        self._answering = answering
        self._folders = folders
        self._keys = keys
        self._checking = asyncio.Lock()
        self._checked: tuple[float, Readiness] | None = None
        self._matcher = matcher
        self._collections = collections
        self._weights = weights

    async def health(self) -> Health:
        """The state of the service; it takes a read of the database.

        Raises:
            ThresholdRequiredError: nothing says how near a match has to be.
        """
        default = await self._collections.describe(DEFAULT_COLLECTION)
        plan = await self._matcher.plan_for(default.collection, ScreeningOptions())
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
            upgrade=await self._answering.upgrade() if self._answering else None,
        )

    async def readiness(self) -> Readiness:
        """What works at this moment; one answer serves everybody who asks within a second.

        Each check is given two seconds. None waits for requests that compute.
        """
        async with self._checking:
            if self._checked is None or time.monotonic() - self._checked[0] > _CHECK_HOLDS_SECONDS:
                schema, models, writable, storage, index = await asyncio.gather(
                    _holds(self._database.is_at_head()),
                    _holds(self._has_models()),
                    _holds(self._can_write()),
                    _holds(self._can_store()),
                    _holds(self._is_current()),
                )
                upgrade = await self._upgrade()
                self._checked = time.monotonic(), Readiness(schema, models, writable, storage, index, upgrade)
            return self._checked[1]

    def installed(self) -> Installed:
        """Every detector and model with what is missing to use it; this looks at files."""
        if self._weights is None:
            return Installed([], [])
        # It looks for turned heads beside every detector.
        beside_all = self._weights.missing(DETECTORS["centerface"])
        return Installed(
            [(spec, self._weights.missing(spec) or beside_all) for spec in DETECTORS.values()],
            [
                InstalledModel(
                    spec,
                    {metric: default_threshold(name, metric) for metric in EMBEDDING_METRICS},
                    self._weights.missing(spec),
                )
                for name, spec in MODELS.items()
            ],
        )

    async def _has_models(self) -> bool:
        if self._backend is not None:
            await self._backend.require(self._settings.detector_backend, self._settings.model_name)
        return True

    async def _can_write(self) -> bool:
        await self._database.require_writable()
        return True

    async def _can_store(self) -> bool:
        for folder in self._folders:
            await folder.require_writable()
        if self._keys is not None:
            await asyncio.to_thread(self._keys.require_writable)
        return True

    async def _is_current(self) -> bool:
        if self._replica is not None and self._answering is not None:
            default = await self._collections.get(DEFAULT_COLLECTION)
            await self._replica.catch_up(default.id, await self._answering.of(default.id))
        return True

    async def _upgrade(self) -> Upgrade | None:
        """``None`` also where it cannot be read in time, which the checks say."""
        try:
            async with asyncio.timeout(_CHECK_SECONDS):
                return await self._answering.upgrade() if self._answering else None
        except (FacescreenError, TimeoutError):
            return None


async def _holds(check: Awaitable[bool]) -> bool:
    try:
        async with asyncio.timeout(_CHECK_SECONDS):
            return await check
    except (FacescreenError, TimeoutError):
        return False
    except Exception:
        logger.exception("readiness_check_failed")
        return False
