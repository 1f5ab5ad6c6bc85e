"""Composition root: what one process shares, made once and closed in reverse order."""

import logging
import os
import time
from collections.abc import AsyncIterator
from contextlib import AsyncExitStack, asynccontextmanager
from dataclasses import dataclass

from facescreen.backends.base import Backend
from facescreen.backends.local import LocalBackend
from facescreen.config import Settings
from facescreen.db.connection import Database
from facescreen.db.files import StoreName
from facescreen.errors import (
    EmbeddingsMissingError,
    FolderEmptyError,
    NotReadyError,
    StartupError,
    ThresholdRequiredError,
)
from facescreen.images.fetch import Fetcher
from facescreen.images.folder_store import FolderStore
from facescreen.images.sources import ImageSources
from facescreen.pool import WorkPool
from facescreen.recognition.weights import WeightStore
from facescreen.services.blacklist import BlacklistService
from facescreen.services.detection import DetectionService
from facescreen.services.enrollment import Enroller
from facescreen.services.files import StoredFiles
from facescreen.services.health import HealthService
from facescreen.services.intake import Intake
from facescreen.services.reindex import ReindexService
from facescreen.services.replica import ListReplica
from facescreen.services.screening import ScreeningDefaults, ScreeningOptions, ScreeningService, resolve_policy
from facescreen.services.sync import FolderSyncService

logger = logging.getLogger(__name__)


@dataclass(frozen=True, slots=True)
class Services:
    """Everything that handlers and commands call."""

    settings: Settings
    database: Database
    backend: Backend
    detection: DetectionService
    screening: ScreeningService
    blacklist: BlacklistService
    sync: FolderSyncService
    reindex: ReindexService
    health: HealthService


@asynccontextmanager
async def open_services(settings: Settings, backend: Backend | None = None) -> AsyncIterator[Services]:
    """The services on a database whose schema is at head, with the default detector and model loaded.

    Args:
        backend: instead of the configured one.

    Raises:
        StartupError: the schema is not at head, weights are missing, or the settings contradict each other.
    """
    async with AsyncExitStack() as stack:
        database = Database(settings.database_url)
        stack.push_async_callback(database.aclose)
        await database.require_head()
        pool = WorkPool(threads=max(2, os.cpu_count() or 1), capacity=settings.max_pending_images)
        stack.callback(pool.close)
        fetcher = Fetcher(
            timeout_seconds=settings.fetch_timeout_seconds,
            max_bytes=settings.max_image_bytes,
            allowed_hosts=settings.url_allowed_hosts,
        )
        stack.push_async_callback(fetcher.aclose)
        sources = ImageSources(roots=settings.image_input_roots, fetcher=fetcher, max_bytes=settings.max_image_bytes)
        weights = WeightStore(settings.deepface_home)
        backend = backend or LocalBackend(
            detector=settings.detector_backend,
            model=settings.model_name,
            detector_max_side=settings.detector_max_side,
            weights=weights,
            pool=pool,
        )
        stack.push_async_callback(backend.aclose)
        stored = StoredFiles(
            database,
            {
                StoreName.BLACKLIST: FolderStore(settings.blacklist_db_path),
                StoreName.PROCESSED: FolderStore(settings.processed_images_output_dir),
            },
        )
        stack.callback(stored.close)
        intake = Intake(
            backend=backend, pool=pool, max_bytes=settings.max_image_bytes, max_pixels=settings.max_image_pixels
        )
        enroller = Enroller(
            backend=backend, intake=intake, detector=settings.detector_backend, model=settings.model_name
        )
        replica = ListReplica(database, backend)
        reindex = ReindexService(
            database=database,
            backend=backend,
            replica=replica,
            stored=stored,
            intake=intake,
            inline_limit=settings.inline_reindex_limit,
        )
        defaults = ScreeningDefaults(
            detector=settings.detector_backend,
            model=settings.model_name,
            metric=settings.distance_metric,
            threshold=settings.match_threshold,
        )
        try:
            resolve_policy(ScreeningOptions(), defaults)
            await backend.load()
        except ThresholdRequiredError:
            raise StartupError(
                f"MATCH_THRESHOLD: must be set, none was measured for {defaults.model} with {defaults.metric}"
            ) from None
        except NotReadyError as error:
            raise StartupError(str(error)) from None
        yield Services(
            settings=settings,
            database=database,
            backend=backend,
            detection=DetectionService(
                sources=sources, intake=intake, pool=pool, default_detector=settings.detector_backend
            ),
            screening=ScreeningService(
                database=database,
                backend=backend,
                replica=replica,
                reindex=reindex,
                stored=stored,
                sources=sources,
                intake=intake,
                pool=pool,
                defaults=defaults,
                max_images=settings.max_images_per_request,
            ),
            blacklist=BlacklistService(
                database=database,
                stored=stored,
                enroller=enroller,
                pool=pool,
                max_images=settings.max_images_per_request,
            ),
            sync=FolderSyncService(
                database=database, stored=stored, enroller=enroller, folder=settings.blacklist_db_path
            ),
            reindex=reindex,
            health=HealthService(settings=settings, defaults=defaults, database=database, weights=weights),
        )


async def start(services: Services) -> None:
    """What a serving process does before it answers: enroll the photos in the folder, and load the list.

    Raises:
        StartupError: too many photos have no embedding of the configured model.
    """
    last = time.monotonic()

    def progress(done: int, total: int) -> None:
        nonlocal last
        if time.monotonic() - last > 5:
            last = time.monotonic()
            logger.info("folder_sync_running", extra={"done": done, "total": total})

    try:
        report = await services.sync.sync(progress)
        await services.reindex.ensure(services.settings.model_name)
    except (FolderEmptyError, EmbeddingsMissingError) as error:
        raise StartupError(str(error)) from None
    counts = {"added": len(report.added), "withdrawn": len(report.withdrawn), "skipped": len(report.skipped)}
    logger.info("folder_synchronised", extra=counts)
    for skipped in report.skipped:
        logger.warning("photo_skipped", extra={"code": skipped.code})
