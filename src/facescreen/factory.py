"""Composition root: what one process shares, made once and closed in reverse order."""

import logging
import os
import time
from collections.abc import AsyncIterator, Mapping
from contextlib import AsyncExitStack, asynccontextmanager
from dataclasses import dataclass
from pathlib import Path

from facescreen.aws import AwsAccess, AwsClient
from facescreen.backends.base import Backend, EmbeddingBackend, GalleryBackend
from facescreen.backends.local import LocalBackend
from facescreen.backends.rekognition import RekognitionBackend
from facescreen.config import Settings
from facescreen.db.connection import Database, path_of
from facescreen.db.files import StoreName
from facescreen.db.key_ring import KeyRing
from facescreen.domain.false_alerts import AlertBudget
from facescreen.errors import (
    AwsError,
    EmbeddingsMissingError,
    EmbeddingsUnreadableError,
    FolderEmptyError,
    InvalidThresholdError,
    NotReadyError,
    PackageMissingError,
    StartupError,
    StorageFullError,
    ThresholdRequiredError,
    WeightsMissingError,
)
from facescreen.images.fetch import Fetcher
from facescreen.images.folder_store import FolderStore
from facescreen.images.s3_store import S3Store
from facescreen.images.sealed_store import SealedStore
from facescreen.images.sources import ImageSources
from facescreen.images.store import ImageStore
from facescreen.pool import WorkPool
from facescreen.recognition.catalog import has_similarity
from facescreen.recognition.weights import WeightStore
from facescreen.services.answering import AnsweringModel
from facescreen.services.audit import AuditService
from facescreen.services.backup import BackupService
from facescreen.services.blacklist import BlacklistService
from facescreen.services.calibration import CalibrationService, ProbeReader
from facescreen.services.cleared import ClearedFaces
from facescreen.services.clearing import ClearingService
from facescreen.services.collections import CollectionService
from facescreen.services.detection import DetectionService
from facescreen.services.encryption import EncryptionService, require_unsealed
from facescreen.services.enrollment import Enroller
from facescreen.services.evaluation import EvaluationService
from facescreen.services.faces import FaceService
from facescreen.services.files import StoredFiles
from facescreen.services.health import HealthService
from facescreen.services.idempotency import IdempotencyService
from facescreen.services.intake import Intake
from facescreen.services.keys import KeyService
from facescreen.services.list_report import ListReportService
from facescreen.services.matching import EmbeddingMatcher, GalleryMatcher, Matcher
from facescreen.services.people import PeopleService
from facescreen.services.presence import at_work
from facescreen.services.register import Register
from facescreen.services.reindex import ReindexService
from facescreen.services.replica import ListReplica
from facescreen.services.resemblance import Resemblance
from facescreen.services.restore import Restoration
from facescreen.services.retention import RetentionService
from facescreen.services.screening import ScreeningService
from facescreen.services.sync import FolderSyncService
from facescreen.services.thresholds import ScreeningDefaults, ScreeningOptions
from facescreen.services.trail import TrailService
from facescreen.services.upgrade import UpgradeService

logger = logging.getLogger(__name__)

_THREADS = max(2, os.cpu_count() or 1)
"""For pixel and model work."""


@dataclass(frozen=True, slots=True)
class Facade:
    """What the operations of Rekognition call; ``s3`` is where images are that a request names."""

    faces: FaceService
    people: PeopleService
    s3: AwsClient


@dataclass(frozen=True, slots=True)
class Services:
    """Everything that handlers and commands call.

    Attributes:
        reindex: ``None`` where an outside service keeps the faces and there are no embeddings.
        upgrade, calibration, facade: ``None`` for the same reason.
    """

    settings: Settings
    database: Database
    keys: KeyService
    backend: Backend
    collections: CollectionService
    detection: DetectionService
    screening: ScreeningService
    clearing: ClearingService
    blacklist: BlacklistService
    report: ListReportService
    register: Register
    sync: FolderSyncService
    reindex: ReindexService | None
    upgrade: UpgradeService | None
    calibration: CalibrationService | None
    facade: Facade | None
    audit: AuditService
    idempotency: IdempotencyService
    retention: RetentionService
    trail: TrailService
    health: HealthService


@dataclass(frozen=True, slots=True)
class _Recognition:
    """One kind of backend with what hangs on it; ``embeddings`` and what comes after it, or ``gallery``."""

    backend: Backend
    matcher: Matcher
    embeddings: EmbeddingBackend | None = None
    replica: ListReplica | None = None
    reindex: ReindexService | None = None
    answering: AnsweringModel | None = None
    cleared: ClearedFaces | None = None
    upgrade: UpgradeService | None = None
    gallery: GalleryBackend | None = None


@asynccontextmanager
async def open_evaluation(
    settings: Settings, backend: EmbeddingBackend | None = None
) -> AsyncIterator[EvaluationService]:
    """What measures recognition on this machine; it needs no database, and no model is loaded yet.

    Args:
        backend: instead of the local one.
    """
    async with _open_embeddings(settings, backend) as (opened, intake):
        yield EvaluationService(
            backend=opened, intake=intake, detector_max_side=settings.detector_max_side, at_once=_THREADS
        )


@asynccontextmanager
async def open_probe_reader(settings: Settings, backend: EmbeddingBackend | None = None) -> AsyncIterator[ProbeReader]:
    """What reads photos of people who are on no list; it needs no database, and no model is loaded yet.

    Args:
        backend: instead of the local one.
    """
    async with _open_embeddings(settings, backend) as (opened, intake):
        yield ProbeReader(backend=opened, intake=intake, at_once=_THREADS)


@asynccontextmanager
async def _open_embeddings(
    settings: Settings, backend: EmbeddingBackend | None
) -> AsyncIterator[tuple[EmbeddingBackend, Intake]]:
    async with AsyncExitStack() as stack:
        pool = WorkPool(threads=_THREADS)
        stack.callback(pool.close)
        backend = backend or _local(settings, pool)
        stack.push_async_callback(backend.aclose)
        yield backend, _intake(settings, backend, pool)


@asynccontextmanager
async def open_backup(settings: Settings) -> AsyncIterator[BackupService]:
    """What makes backups, while others work on the data or not; it needs no model.

    Raises:
        StartupError: the schema is not at head.
    """
    await restoration(settings).settle()
    async with AsyncExitStack() as stack:
        database, _ = await stack.enter_async_context(at_work(settings.database_url))
        is_local = settings.face_processing_backend == "deepface"
        yield BackupService(
            database=database,
            stores={store: FolderStore(folder) for store, folder in _folders(settings).items()},
            keeps_photos=is_local or settings.aws_keep_local_copy,
            not_included=() if is_local else ("photos in the bucket", "faces in the Rekognition collections"),
        )


def restoration(settings: Settings) -> Restoration:
    """What replaces the data by a backup."""
    return Restoration(path_of(settings.database_url), _folders(settings), settings.encryption_key_dir)


def _folders(settings: Settings) -> Mapping[StoreName, Path]:
    return {
        StoreName.BLACKLIST: settings.blacklist_db_path,
        StoreName.PROCESSED: settings.processed_images_output_dir,
    }


@asynccontextmanager
async def open_services(settings: Settings, backend: EmbeddingBackend | None = None) -> AsyncIterator[Services]:
    """The services on a database whose schema is at head, with the backend ready.

    Args:
        backend: instead of the configured one.

    Raises:
        StartupError: the schema is not at head, weights are missing, AWS cannot be used, or the settings contradict
            each other.
    """
    await restoration(settings).settle()
    async with AsyncExitStack() as stack:
        key_ring = _key_ring(settings, stack)
        database, presence = await stack.enter_async_context(at_work(settings.database_url, key_ring))
        pool = WorkPool(threads=_THREADS)
        stack.callback(pool.close)
        fetcher = Fetcher(
            timeout_seconds=settings.fetch_timeout_seconds,
            max_bytes=settings.max_image_bytes,
            allowed_hosts=settings.url_allowed_hosts,
        )
        stack.push_async_callback(fetcher.aclose)
        sources = ImageSources(roots=settings.image_input_roots, fetcher=fetcher, max_bytes=settings.max_image_bytes)
        weights = WeightStore(settings.deepface_home)
        is_aws = backend is None and settings.face_processing_backend == "aws_rekognition"
        stores = _stores(settings, key_ring, await _bucket(settings, stack) if is_aws else None)
        stored = StoredFiles(database, stores, presence)
        encryption = (
            EncryptionService(database=database, keys=key_ring, stored=stored, stores=stores) if key_ring else None
        )
        try:
            await (encryption.require_fit() if encryption else require_unsealed(database, stores))
        except AwsError as error:
            raise StartupError(str(error)) from None
        if is_aws:
            recognition = _rekognition(settings, database, pool)
        else:
            backend = backend or _local(settings, pool)
            recognition = _embeddings(settings, backend, database, pool=pool, stored=stored)
        stack.push_async_callback(recognition.backend.aclose)
        await _load(recognition)
        intake = _intake(settings, recognition.backend, pool)
        enroller = Enroller(
            backend=recognition.backend,
            embeddings=recognition.embeddings,
            intake=intake,
            pool=pool,
            detector=settings.detector_backend,
            model=settings.model_name,
        )
        resemblance = Resemblance(
            database=database,
            backend=recognition.backend,
            embeddings=recognition.embeddings,
            matcher=recognition.matcher,
        )
        copies_to = [StoreName.BUCKET] if is_aws else [StoreName.BLACKLIST]
        if is_aws and settings.aws_keep_local_copy:
            copies_to.append(StoreName.BLACKLIST)
        register = Register(
            database=database,
            stored=stored,
            pool=pool,
            detector=recognition.matcher.plan(ScreeningOptions()).detector_name,
            gallery=recognition.gallery,
            answering=recognition.answering,
            copies_to=copies_to,
            folder=settings.blacklist_db_path,
        )
        stack.push_async_callback(register.aclose)
        collections = CollectionService(
            database=database, stored=stored, replica=recognition.replica, gallery=recognition.gallery
        )
        trail = TrailService(database)
        stack.push_async_callback(trail.aclose)
        sync = FolderSyncService(
            database=database,
            collections=collections,
            stored=stored,
            register=register,
            enroller=enroller,
            resemblance=resemblance,
            trail=trail,
            folder=settings.blacklist_db_path,
            photos=stores[StoreName.BLACKLIST],
        )
        facade = _facade(
            settings,
            recognition,
            database,
            trail=trail,
            collections=collections,
            register=register,
            intake=intake,
            pool=pool,
        )
        if facade is not None:
            stack.push_async_callback(facade.s3.aclose)
        yield Services(
            settings=settings,
            database=database,
            keys=KeyService(database),
            backend=recognition.backend,
            collections=collections,
            detection=DetectionService(sources=sources, intake=intake, matcher=recognition.matcher, trail=trail),
            screening=ScreeningService(
                database=database,
                backend=recognition.backend,
                matcher=recognition.matcher,
                collections=collections,
                stored=stored,
                sources=sources,
                intake=intake,
                pool=pool,
                max_images=settings.max_images_per_request,
            ),
            clearing=ClearingService(database=database, cleared=recognition.cleared),
            blacklist=BlacklistService(
                database=database,
                collections=collections,
                stored=stored,
                register=register,
                enroller=enroller,
                resemblance=resemblance,
                intake=intake,
                max_images=settings.max_images_per_request,
            ),
            report=ListReportService(
                database=database,
                collections=collections,
                matcher=recognition.matcher,
                backend=recognition.embeddings,
                pool=pool,
                folder=sync,
            ),
            register=register,
            sync=sync,
            reindex=recognition.reindex,
            upgrade=recognition.upgrade,
            calibration=_calibration(settings, recognition, database, collections=collections, intake=intake),
            facade=facade,
            audit=AuditService(
                database=database,
                stored=stored,
                register=register,
                intake=intake,
                gallery=recognition.gallery,
                copies_to=copies_to,
                encryption=encryption,
                detector=settings.detector_backend,
                model=settings.model_name,
            ),
            idempotency=IdempotencyService(database, presence),
            trail=trail,
            retention=RetentionService(database=database, stored=stored, register=register, settings=settings),
            health=HealthService(
                settings=settings,
                database=database,
                matcher=recognition.matcher,
                collections=collections,
                backend=recognition.embeddings,
                replica=recognition.replica,
                answering=recognition.answering,
                folders=[FolderStore(folder) for folder in _folders(settings).values()],
                keys=key_ring,
                weights=None if is_aws else weights,
            ),
        )


@asynccontextmanager
async def open_encryption(settings: Settings) -> AsyncIterator[EncryptionService]:
    """What encrypts the data of services that may run meanwhile; no model is loaded.

    Raises:
        StartupError: the setting is empty, the keys are not of these data, or the keys, the schema or the bucket cannot
            be used.
    """
    await restoration(settings).settle()
    async with AsyncExitStack() as stack:
        key_ring = _key_ring(settings, stack)
        if key_ring is None:
            raise StartupError("ENCRYPTION_KEY_DIR: must be set; nothing is encrypted without it")
        database, presence = await stack.enter_async_context(at_work(settings.database_url, key_ring))
        is_aws = settings.face_processing_backend == "aws_rekognition"
        stores = _stores(settings, key_ring, await _bucket(settings, stack) if is_aws else None)
        stored = StoredFiles(database, stores, presence)
        encryption = EncryptionService(database=database, keys=key_ring, stored=stored, stores=stores)
        await encryption.require_fit()
        yield encryption


def _key_ring(settings: Settings, stack: AsyncExitStack) -> KeyRing | None:
    if settings.encryption_key_dir is None:
        return None
    data = (
        settings.blacklist_db_path,
        settings.processed_images_output_dir,
        path_of(settings.database_url).parent,
    )
    key_ring = KeyRing(settings.encryption_key_dir, apart_from=data)
    stack.callback(key_ring.close)
    return key_ring


def _stores(settings: Settings, key_ring: KeyRing | None, bucket: S3Store | None) -> dict[StoreName, SealedStore]:
    stores: dict[StoreName, ImageStore] = {
        StoreName.BLACKLIST: FolderStore(settings.blacklist_db_path),
        StoreName.PROCESSED: FolderStore(settings.processed_images_output_dir),
    }
    if bucket is not None:
        stores[StoreName.BUCKET] = bucket
    return {name: SealedStore(store, name, key_ring) for name, store in stores.items()}


async def _load(recognition: _Recognition) -> None:
    try:
        await recognition.backend.load()
        recognition.matcher.plan(ScreeningOptions())
    except InvalidThresholdError as error:
        raise StartupError(f"MATCH_THRESHOLD: {error}") from None
    except (WeightsMissingError, PackageMissingError) as error:
        raise StartupError(
            f"{error}; or set DETECTOR_BACKEND and MODEL_NAME to what is here according to `facescreen weights list`"
        ) from None
    except (NotReadyError, AwsError) as error:
        raise StartupError(str(error)) from None


def _facade(
    settings: Settings,
    recognition: _Recognition,
    database: Database,
    *,
    trail: TrailService,
    collections: CollectionService,
    register: Register,
    intake: Intake,
    pool: WorkPool,
) -> Facade | None:
    """What serves Rekognition's operations from the embeddings that are kept here."""
    backend, replica, reindex = recognition.embeddings, recognition.replica, recognition.reindex
    answering = recognition.answering
    if backend is None or replica is None or reindex is None or answering is None:
        return None
    is_open = settings.rekognition_access_keys or settings.rekognition_allow_unsigned
    if is_open and not has_similarity(settings.model_name):
        raise StartupError(
            f"MODEL_NAME: the similarity of {settings.model_name} was never measured, which /rekognition needs; "
            "choose SFace, or set neither REKOGNITION_ACCESS_KEYS nor REKOGNITION_ALLOW_UNSIGNED"
        )
    return Facade(
        faces=FaceService(
            database=database,
            collections=collections,
            register=register,
            backend=backend,
            replica=replica,
            reindex=reindex,
            intake=intake,
            pool=pool,
            trail=trail,
            detector=settings.detector_backend,
            answering=answering,
        ),
        people=PeopleService(
            database=database,
            collections=collections,
            register=register,
            backend=backend,
            reindex=reindex,
            answering=answering,
        ),
        s3=AwsClient("s3", AwsAccess.from_settings(settings)),
    )


def _local(settings: Settings, pool: WorkPool) -> LocalBackend:
    return LocalBackend(
        detector=settings.detector_backend,
        model=settings.model_name,
        detector_max_side=settings.detector_max_side,
        weights=WeightStore(settings.deepface_home),
        pool=pool,
    )


def _calibration(
    settings: Settings, recognition: _Recognition, database: Database, *, collections: CollectionService, intake: Intake
) -> CalibrationService | None:
    """What measures false alerts of the embeddings that are kept here."""
    backend, matcher, reindex = recognition.embeddings, recognition.matcher, recognition.reindex
    answering = recognition.answering
    if backend is None or reindex is None or answering is None or not isinstance(matcher, EmbeddingMatcher):
        return None
    return CalibrationService(
        database=database,
        backend=backend,
        collections=collections,
        matcher=matcher,
        reindex=reindex,
        reader=ProbeReader(backend=backend, intake=intake, at_once=_THREADS),
        answering=answering,
        defaults=_defaults(settings),
    )


def _intake(settings: Settings, backend: Backend, pool: WorkPool) -> Intake:
    return Intake(backend=backend, pool=pool, max_bytes=settings.max_image_bytes, max_pixels=settings.max_image_pixels)


def _defaults(settings: Settings) -> ScreeningDefaults:
    return ScreeningDefaults(
        detector=settings.detector_backend,
        model=settings.model_name,
        metric=settings.distance_metric,
        threshold=settings.match_threshold,
        review_threshold=settings.review_threshold,
        budget=AlertBudget(settings.false_alert_budget, settings.review_false_alert_budget),
    )


def _embeddings(
    settings: Settings, backend: EmbeddingBackend, database: Database, *, pool: WorkPool, stored: StoredFiles
) -> _Recognition:
    """Embeddings in the database, an index in this process."""
    replica = ListReplica(database, backend)
    intake = _intake(settings, backend, pool)
    reindex = ReindexService(
        database=database,
        backend=backend,
        replica=replica,
        stored=stored,
        intake=intake,
        inline_limit=settings.inline_reindex_limit,
    )
    answering = AnsweringModel(
        database=database,
        backend=backend,
        replica=replica,
        detector=settings.detector_backend,
        configured=settings.model_name,
        inline_limit=settings.inline_reindex_limit,
    )
    cleared = ClearedFaces(database=database, backend=backend, stored=stored, intake=intake)
    matcher = EmbeddingMatcher(
        database=database,
        backend=backend,
        replica=replica,
        reindex=reindex,
        answering=answering,
        cleared=cleared,
        defaults=_defaults(settings),
    )
    upgrade = UpgradeService(
        database=database,
        answering=answering,
        reindex=reindex,
        cleared=cleared,
        inline_limit=settings.inline_reindex_limit,
    )
    return _Recognition(
        backend,
        matcher,
        embeddings=backend,
        replica=replica,
        reindex=reindex,
        answering=answering,
        cleared=cleared,
        upgrade=upgrade,
    )


def _rekognition(settings: Settings, database: Database, pool: WorkPool) -> _Recognition:
    """Faces in a Rekognition collection."""
    client = AwsClient("rekognition", AwsAccess.from_settings(settings))
    gallery = RekognitionBackend(client, settings.aws_rekognition_collection_id, pool)
    matcher = GalleryMatcher(backend=gallery, database=database, defaults=_defaults(settings))
    return _Recognition(gallery, matcher, gallery=gallery)


async def _bucket(settings: Settings, stack: AsyncExitStack) -> S3Store:
    """The bucket that keeps reference photos."""
    if settings.aws_s3_bucket_name is None:
        raise StartupError("AWS_S3_BUCKET_NAME: must be set with FACE_PROCESSING_BACKEND=aws_rekognition")
    client = AwsClient("s3", AwsAccess.from_settings(settings))
    stack.push_async_callback(client.aclose)
    store = S3Store(client, settings.aws_s3_bucket_name)
    try:
        await store.require()
    except AwsError as error:
        raise StartupError(str(error)) from None
    return store


async def start(services: Services) -> None:
    """What a serving process does before it answers: enroll the photos in the folder, and load the list.

    Raises:
        StartupError: too many photos have no embedding of the configured model and no other model has them all, or
            the model that answers has no threshold.
    """
    try:
        if services.facade is not None:
            await services.facade.people.forget_expired()
        for entry in await services.register.abandoned():
            await services.register.finish(entry)
        await _synchronise(services)
        if services.upgrade is not None:
            for collection in await services.collections.all():
                await services.upgrade.prepare(collection.id)
        await services.health.health()
    except ThresholdRequiredError as error:
        raise StartupError(f"MATCH_THRESHOLD or FALSE_ALERT_BUDGET: {error}") from None
    except (FolderEmptyError, EmbeddingsMissingError, EmbeddingsUnreadableError, AwsError) as error:
        raise StartupError(str(error)) from None


async def _synchronise(services: Services) -> None:
    """Enroll the photos in the folder. Where that cannot be read or written, who is on the list already is searched."""
    last = time.monotonic()

    def progress(done: int, total: int) -> None:
        nonlocal last
        if time.monotonic() - last > 5:
            last = time.monotonic()
            logger.info("folder_sync_running", extra={"done": done, "total": total})

    try:
        report = await services.sync.sync(progress)
    except StorageFullError as error:
        logger.warning("folder_not_synchronised", extra={"code": error.code})
        return
    counts = {name: len(getattr(report, name)) for name in ("added", "withdrawn", "skipped", "warnings")}
    logger.info("folder_synchronised", extra=counts)
    for skipped in report.skipped:
        logger.warning("photo_skipped", extra={"code": skipped.code})
