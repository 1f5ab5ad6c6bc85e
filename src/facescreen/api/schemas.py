"""The wire: what requests and answers look like, and how answers are made from the domain."""

from datetime import datetime
from typing import Annotated

from pydantic import BaseModel, ConfigDict, Field, StringConstraints

from facescreen.config import DetectorName, ModelName
from facescreen.domain.blacklist import COLLECTION_NAME, DEFAULT_COLLECTION, Entry, ReferenceImage, Status
from facescreen.domain.distances import EMBEDDING_METRICS, EmbeddingMetric, Metric
from facescreen.domain.faces import Box, Face, Point
from facescreen.domain.screening import ImageError, Match, ScreenedFace, Screening, Verdict
from facescreen.services.collections import DescribedCollection
from facescreen.services.health import Health, Installed
from facescreen.services.sync import SyncReport

IDENTITY_PREFIX = "blacklist_db"

Name = Annotated[str, StringConstraints(strip_whitespace=True, min_length=1, max_length=200)]
Reason = Annotated[str, StringConstraints(strip_whitespace=True, max_length=2000)]
CollectionName = Annotated[
    str,
    StringConstraints(pattern=COLLECTION_NAME.pattern, min_length=1, max_length=255),
    Field(description="Letters, digits and `_.-`, as Rekognition has it."),
]
ImageText = Annotated[
    str,
    Field(
        min_length=1,
        description="A path inside the configured roots, an http(s) URL, a data URL, or bare base64.",
        examples=["samples/astronaut.jpg"],
    ),
]
PixelPoint = tuple[int, int]


class _Request(BaseModel):
    model_config = ConfigDict(extra="forbid")


class DetectRequest(_Request):
    image: ImageText
    detector_backend: DetectorName | None = Field(default=None, description="Default: the setting of the same name.")


class ProcessRequest(_Request):
    collection: CollectionName = DEFAULT_COLLECTION
    images: list[ImageText] = Field(min_length=1, examples=[["samples/astronaut.jpg"]])
    detector_backend: DetectorName | None = Field(default=None, description="Default: the setting of the same name.")
    model_name: ModelName | None = Field(default=None, description="Default: the setting of the same name.")
    distance_metric: EmbeddingMetric | None = Field(default=None, description="Default: the setting of the same name.")
    threshold: float | None = Field(
        default=None,
        ge=0,
        allow_inf_nan=False,
        description="Largest distance that matches. Default: what was measured for the model and metric.",
    )


class CreateCollectionRequest(_Request):
    name: CollectionName = Field(examples=["staff-entrance"])


class UpdateRequest(_Request):
    name: Name | None = None
    reason: Reason | None = None


class FacialArea(BaseModel):
    """Box and landmarks in pixels of the upright image; left and right are the person's own."""

    x: int
    y: int
    w: int
    h: int
    left_eye: PixelPoint | None
    right_eye: PixelPoint | None
    nose: PixelPoint | None
    mouth_left: PixelPoint | None
    mouth_right: PixelPoint | None

    @classmethod
    def of(cls, face: Face) -> "FacialArea":
        box, marks = face.box, face.landmarks
        return cls(
            x=box.x,
            y=box.y,
            w=box.w,
            h=box.h,
            left_eye=_pixel(marks.left_eye),
            right_eye=_pixel(marks.right_eye),
            nose=_pixel(marks.nose),
            mouth_left=_pixel(marks.mouth_left),
            mouth_right=_pixel(marks.mouth_right),
        )


class DetectedFace(BaseModel):
    facial_area: FacialArea
    confidence: float = Field(description="The detector's own score in [0, 1]; detectors do not share its meaning.")

    @classmethod
    def of(cls, face: Face) -> "DetectedFace":
        return cls(facial_area=FacialArea.of(face), confidence=face.confidence)


class BlacklistMatch(BaseModel):
    """One reference photo that the face matches. `target_*` is the face in it, `source_*` the face in the input."""

    entry_id: int
    name: str
    reason: str
    identity: str = Field(examples=["blacklist_db/ada-lovelace-3f9a1c2b/5d1c07aa31bb20e4-9e107d9d.jpg"])
    target_x: int
    target_y: int
    target_w: int
    target_h: int
    source_x: int
    source_y: int
    source_w: int
    source_h: int
    threshold: float
    distance: float
    similarity: float | None = Field(
        description="What Rekognition says, 0 to 100, with `FACE_PROCESSING_BACKEND=aws_rekognition`; `distance` is "
        "1 - similarity / 100 then, and must not be compared with distances of other backends."
    )
    confidence: float | None = Field(
        description="Calibrated probability in percent, at even prior, of one person; null without calibration."
    )
    model_name: str
    distance_metric: Metric

    @classmethod
    def of(cls, match: Match, source: Box) -> "BlacklistMatch":
        return cls(
            entry_id=match.entry_id,
            name=match.name,
            reason=match.reason,
            identity=f"{IDENTITY_PREFIX}/{match.identity}",
            target_x=match.target.x,
            target_y=match.target.y,
            target_w=match.target.w,
            target_h=match.target.h,
            source_x=source.x,
            source_y=source.y,
            source_w=source.w,
            source_h=source.h,
            threshold=match.threshold,
            distance=match.distance,
            similarity=match.similarity,
            confidence=match.confidence,
            model_name=match.model_name,
            distance_metric=match.metric,
        )


class ProcessedFace(BaseModel):
    face_index: int
    facial_area: FacialArea
    confidence: float
    verdict: Verdict
    blacklist_matches: list[BlacklistMatch] = Field(description="Nearest first.")

    @classmethod
    def of(cls, index: int, screened: ScreenedFace) -> "ProcessedFace":
        return cls(
            face_index=index,
            facial_area=FacialArea.of(screened.face),
            confidence=screened.face.confidence,
            verdict=screened.verdict,
            blacklist_matches=[BlacklistMatch.of(match, screened.face.box) for match in screened.matches],
        )


class ItemError(BaseModel):
    """Why this image has no answer; the others of its request are not affected."""

    code: str
    detail: str

    @classmethod
    def of(cls, error: ImageError) -> "ItemError":
        return cls(code=error.code, detail=error.detail)


class ProcessedImage(BaseModel):
    id: int
    collection: str
    image_path_or_identifier: str = Field(
        description="The path, the URL without credentials and query, or the SHA-256 of inline data."
    )
    faces: list[ProcessedFace]
    error: ItemError | None
    detector_backend: str
    model_name: str
    distance_metric: Metric
    threshold: float
    list_version: int = Field(description="The version of the list that the faces were compared with.")
    created_at: datetime

    @classmethod
    def of(cls, screening: Screening) -> "ProcessedImage":
        return cls(
            id=screening.id,
            collection=screening.collection,
            image_path_or_identifier=screening.image_identifier,
            faces=[ProcessedFace.of(index, face) for index, face in enumerate(screening.faces)],
            error=ItemError.of(screening.error) if screening.error else None,
            detector_backend=screening.detector,
            model_name=screening.model_name,
            distance_metric=screening.policy.metric,
            threshold=screening.policy.threshold,
            list_version=screening.list_version,
            created_at=screening.created_at,
        )


class ProcessedImagePage(BaseModel):
    total_items: int
    items: list[ProcessedImage] = Field(description="Newest first.")


class BlacklistImage(BaseModel):
    """A reference photo and the face in it that the entry is recognized by."""

    id: int
    identity: str
    status: Status
    width: int
    height: int
    facial_area: FacialArea
    confidence: float
    detector_backend: str
    created_at: datetime

    @classmethod
    def of(cls, image: ReferenceImage) -> "BlacklistImage":
        return cls(
            id=image.id,
            identity=f"{IDENTITY_PREFIX}/{image.photo}",
            status=image.status,
            width=image.width,
            height=image.height,
            facial_area=FacialArea.of(image.face),
            confidence=image.face.confidence,
            detector_backend=image.detector,
            created_at=image.created_at,
        )


class BlacklistRecord(BaseModel):
    id: int
    collection: str
    name: str
    reason: str
    user_id: str | None = Field(description="Outward id: `UserId` for Rekognition clients. Null: no person of its own.")
    status: Status = Field(description="Only `active` entries and photos match.")
    images: list[BlacklistImage]
    created_at: datetime
    updated_at: datetime

    @classmethod
    def of(cls, entry: Entry) -> "BlacklistRecord":
        return cls(
            id=entry.id,
            collection=entry.collection,
            name=entry.name,
            reason=entry.reason,
            user_id=entry.user_id,
            status=entry.status,
            images=[BlacklistImage.of(image) for image in entry.images],
            created_at=entry.created_at,
            updated_at=entry.updated_at,
        )


class CollectionRecord(BaseModel):
    name: str
    entries: int
    reference_images: int
    list_version: int = Field(description="Grows with every change of this collection.")
    created_at: datetime

    @classmethod
    def of(cls, described: DescribedCollection) -> "CollectionRecord":
        return cls(
            name=described.collection.name,
            entries=described.size.entries,
            reference_images=described.size.images,
            list_version=described.version,
            created_at=described.collection.created_at,
        )


class ImagesAdded(BaseModel):
    images_added: int
    record: BlacklistRecord


class SkippedFile(BaseModel):
    file: str
    code: str
    detail: str


class SyncResult(BaseModel):
    """What a synchronisation with the blacklist folder did; files as `blacklist_db/<folder>/<file>`."""

    added: list[str]
    withdrawn: list[str]
    skipped: list[SkippedFile]
    unchanged: int

    @classmethod
    def of(cls, report: SyncReport) -> "SyncResult":
        return cls(
            added=[f"{IDENTITY_PREFIX}/{file}" for file in report.added],
            withdrawn=[f"{IDENTITY_PREFIX}/{file}" for file in report.withdrawn],
            skipped=[
                SkippedFile(file=f"{IDENTITY_PREFIX}/{skip.file}", code=skip.code, detail=skip.detail)
                for skip in report.skipped
            ],
            unchanged=report.unchanged,
        )


class HealthStatus(BaseModel):
    status: str = Field(examples=["ok"])
    version: str
    backend: str
    detector_backend: str
    model_name: str
    distance_metric: Metric
    threshold: float
    collections: int
    list_version: int = Field(description="Of the default collection, as the two counts below.")
    entries: int
    reference_images: int

    @classmethod
    def of(cls, health: Health) -> "HealthStatus":
        return cls(
            status="ok",
            version=health.version,
            backend=health.backend,
            detector_backend=health.detector,
            model_name=health.model,
            distance_metric=health.policy.metric,
            threshold=health.policy.threshold,
            collections=health.collections,
            list_version=health.list_version,
            entries=health.entries,
            reference_images=health.reference_images,
        )


class DetectorInfo(BaseModel):
    name: str
    landmarks: str
    licence: str
    available: bool = Field(description="Whether its packages and weights are on this machine.")
    missing: str | None = Field(description="What is missing and the command that brings it.")


class ModelInfo(BaseModel):
    name: str
    dimension: int
    alignment: str
    default_thresholds: dict[Metric, float | None] = Field(
        description="Measured for this model with this alignment; null: requests must give a threshold."
    )
    threshold_source: str
    licence: str
    available: bool
    missing: str | None


class Models(BaseModel):
    """Everything that `detector_backend`, `model_name` and `distance_metric` may be."""

    detectors: list[DetectorInfo]
    models: list[ModelInfo]
    distance_metrics: list[Metric]

    @classmethod
    def of(cls, installed: Installed) -> "Models":
        return cls(
            detectors=[
                DetectorInfo(
                    name=spec.name,
                    landmarks=spec.landmarks,
                    licence=spec.licence,
                    available=missing is None,
                    missing=missing,
                )
                for spec, missing in installed.detectors
            ],
            models=[
                ModelInfo(
                    name=model.spec.name,
                    dimension=model.spec.dimension,
                    alignment=f"{model.spec.alignment.crop}: {model.spec.alignment.source}",
                    default_thresholds=dict(model.thresholds),
                    threshold_source=model.spec.threshold_source,
                    licence=model.spec.licence,
                    available=model.missing is None,
                    missing=model.missing,
                )
                for model in installed.models
            ],
            distance_metrics=list(EMBEDDING_METRICS) if installed.models else [],
        )


def _pixel(point: Point | None) -> PixelPoint | None:
    return (round(point.x), round(point.y)) if point else None
