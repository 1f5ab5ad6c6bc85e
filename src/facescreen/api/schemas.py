"""The wire: what requests and answers look like, and how answers are made from the domain."""

import re
from collections.abc import Callable, Iterable
from datetime import UTC, datetime
from typing import Annotated, Literal

from fastapi import UploadFile
from pydantic import (
    AfterValidator,
    AwareDatetime,
    BaseModel,
    BeforeValidator,
    ConfigDict,
    Field,
    StringConstraints,
    WithJsonSchema,
)
from pydantic_core import PydanticCustomError

from facescreen.api.bodies import NO_FILE
from facescreen.config import AnyDetector, AnyMetric, AnyModel
from facescreen.domain.blacklist import (
    COLLECTION_NAME,
    DEFAULT_COLLECTION,
    MAX_NAME_LENGTH,
    Entry,
    EntryChanges,
    ReferenceImage,
    Status,
)
from facescreen.domain.distances import EMBEDDING_METRICS, Metric
from facescreen.domain.faces import Box, Face, Point
from facescreen.domain.list_report import Finding, FindingCode, ListedPhoto, ListReport, Weakness
from facescreen.domain.names import fault_of_name, fault_of_text
from facescreen.domain.quality import ENROLLMENT_LIMITS, QualityIssue
from facescreen.domain.screening import (
    Clearance,
    Grade,
    ImageError,
    Match,
    Outcome,
    Policy,
    ScreenedFace,
    Screening,
    Verdict,
)
from facescreen.errors import RejectedFile
from facescreen.services.answering import Upgrade
from facescreen.services.blacklist import Enrollment
from facescreen.services.calibration import CalibrationInForce
from facescreen.services.collections import DescribedCollection
from facescreen.services.explanation import explain
from facescreen.services.health import Health, Installed, Readiness
from facescreen.services.resemblance import (
    EnrollmentWarning,
    LooksLikeEntry,
    PhotoName,
    PhotosDisagree,
    PhotoTurned,
)
from facescreen.services.sync import SyncReport
from facescreen.services.thresholds import wide_thresholds

IDENTITY_PREFIX = "blacklist_db"

NO_NUL = r"^[^\x00]*$"
"""PostgreSQL keeps no text with one, and C programs end there."""


def _checked(fault_of: Callable[[str], str | None]) -> AfterValidator:
    def check(text: str) -> str:
        if fault := fault_of(text):
            raise ValueError(fault)
        return text

    return AfterValidator(check)


Name = Annotated[
    str,
    StringConstraints(strip_whitespace=True, min_length=1, max_length=MAX_NAME_LENGTH, pattern=NO_NUL),
    _checked(fault_of_name),
]
Reason = Annotated[
    str, StringConstraints(strip_whitespace=True, max_length=2000, pattern=NO_NUL), _checked(fault_of_text)
]
QualityOverride = Annotated[
    str,
    StringConstraints(strip_whitespace=True, min_length=1, max_length=2000, pattern=NO_NUL),
    _checked(fault_of_text),
]
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


def _a_file(given: object) -> object:
    if given == "":
        raise PydanticCustomError("file_missing", "is empty; choose a file, or leave the item out")
    if isinstance(given, str):
        raise PydanticCustomError("file_expected", NO_FILE)
    return given


# Swagger UI offers a file picker for `format: binary`, which FastAPI does not write any more.
UploadedFile = Annotated[UploadFile, BeforeValidator(_a_file), WithJsonSchema({"type": "string", "format": "binary"})]


def _in_utc(moment: datetime) -> datetime:
    try:
        return moment.replace(tzinfo=UTC) if moment.tzinfo is None else moment.astimezone(UTC)
    except OverflowError:
        raise ValueError("the moment is before the year 1 or after the year 9999 in UTC") from None


def _written_out(moment: object) -> object:
    if not isinstance(moment, datetime) and not re.match(r"[0-9]{4}-[0-9]{2}-[0-9]{2}", str(moment)):
        raise ValueError("must be a date and time as in RFC 3339")  # Pydantic takes seconds since 1970 too
    return moment


def _with_its_plus(moment: object) -> object:
    """The moment as it was meant: in a query, a plus that is not written as %2B is a blank."""
    if not isinstance(moment, str):
        return moment
    return re.sub(r"(:[0-9]{2}(?:\.[0-9]+)?) (?=[0-9]{2}:?[0-9]{2}$)", r"\1+", moment)


Moment = Annotated[datetime, BeforeValidator(_written_out), BeforeValidator(_with_its_plus), AfterValidator(_in_utc)]
"""A moment in a query; UTC where it gives no zone."""
AwareMoment = Annotated[AwareDatetime, BeforeValidator(_written_out), AfterValidator(_in_utc)]
"""The same, where a zone has to be given: hours matter, and nobody should have to guess."""


def _no_other(number: object) -> object:
    if isinstance(number, bool | str):
        # Pydantic takes true for 1, which would match everybody as a threshold, and knows no TypeError.
        raise ValueError("must be a number")  # noqa: TRY004
    return number


_Number = BeforeValidator(_no_other)


class _Request(BaseModel):
    model_config = ConfigDict(extra="forbid")


_Detector = Annotated[AnyDetector | None, Field(description="Default: the setting of the same name.")]
_Threshold = Annotated[
    float | None,
    Field(
        ge=0,
        allow_inf_nan=False,
        description="Largest distance that matches. Default: chosen by the budget of false alerts for the list as it "
        "stands.",
    ),
]
_ReviewThreshold = Annotated[
    float | None,
    Field(
        ge=0,
        allow_inf_nan=False,
        description="Largest distance that is `possible`, not below `threshold`. Default: chosen in the same way.",
    ),
]


class DetectRequest(_Request):
    image: ImageText
    detector_backend: _Detector = None


class DetectUpload(_Request):
    image: UploadedFile
    detector_backend: _Detector = None


class _Screening(_Request):
    collection: CollectionName = DEFAULT_COLLECTION
    detector_backend: _Detector = None
    model_name: AnyModel | None = Field(default=None, description="Default: the setting of the same name.")
    distance_metric: AnyMetric | None = Field(default=None, description="Default: the setting of the same name.")


class ProcessRequest(_Screening):
    images: list[ImageText] = Field(min_length=1, examples=[["samples/astronaut.jpg"]])
    threshold: Annotated[_Threshold, _Number] = None
    review_threshold: Annotated[_ReviewThreshold, _Number] = None


class ProcessUpload(_Screening):
    images: list[UploadedFile] = Field(min_length=1)
    threshold: _Threshold = None
    review_threshold: _ReviewThreshold = None


class ClearRequest(_Request):
    entry_id: Annotated[int, _Number] = Field(ge=1, le=2**63 - 1, description="Who the face is not.", examples=[0])
    note: Reason = Field(default="", description="Such as `brother, checked at the gate`.")


class CreateCollectionRequest(_Request):
    name: CollectionName = Field(description="Letters, digits and `_.-`, such as `staff-entrance`.", examples=[""])


class UpdateRequest(_Request):
    name: Name | None = None
    reason: Reason | None = None
    expires_at: AwareMoment | None = Field(
        default=None, description="With the offset from UTC. Null, if it is given: never."
    )

    def changes(self) -> EntryChanges:
        """What is given; null leaves name and reason as they are."""
        changed = EntryChanges()
        if self.name is not None:
            changed["name"] = self.name
        if self.reason is not None:
            changed["reason"] = self.reason
        if "expires_at" in self.model_fields_set:
            changed["expires_at"] = self.expires_at
        return changed


class FacialArea(BaseModel):
    """Box and landmarks in pixels of the upright image; left and right are the person's own."""

    turned: int = Field(description="Degrees that the head is turned clockwise: 0, 90, 180 or 270. It is seen upright.")
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
            turned=90 * face.turn,
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


class ClearanceRecord(BaseModel):
    """A reviewer's word that a face is not this person."""

    processed_image_id: int | None = Field(description="The result that it was given on; null once that was deleted.")
    face_index: int = Field(description="The face of that result.")
    note: str
    created_at: datetime
    expired_at: datetime | None = Field(
        description="When it stopped to hold for later results, because the person's photos changed or the result was "
        "deleted; null while it holds."
    )

    @classmethod
    def of(cls, clearance: Clearance) -> "ClearanceRecord":
        return cls(
            processed_image_id=clearance.screening_id,
            face_index=clearance.face_index,
            note=clearance.note,
            created_at=clearance.created_at,
            expired_at=clearance.expired_at,
        )


class BlacklistMatch(BaseModel):
    """One reference photo that the face matches. `target_*` is the face in it, `source_*` the face in the input."""

    entry_id: int
    name: str
    reason: str
    reference_image_id: int
    identity: str = Field(examples=["blacklist_db/ada-lovelace-3f9a1c2b/5d1c07aa31bb20e4-9e107d9d.jpg"])
    target_x: int
    target_y: int
    target_w: int
    target_h: int
    source_x: int
    source_y: int
    source_w: int
    source_h: int
    verdict: Grade = Field(description="`match` within `threshold`, `possible` within `review_threshold` only.")
    threshold: float
    review_threshold: float
    distance: float = Field(
        description="To this reference photo. The thresholds are compared with that of the person's nearest one."
    )
    supporting_references: int = Field(description="How many photos of the person are within `review_threshold`.")
    margin: float | None = Field(
        description="How much farther the next person within `review_threshold` is; null if there is none."
    )
    false_alert_probability: float | None = Field(
        description="Share of faces of people who are not on the list that come so near to somebody on it, measured; "
        "null without a calibration."
    )
    similarity: float | None = Field(
        description="What Rekognition says, 0 to 100, with `FACE_PROCESSING_BACKEND=aws_rekognition`; `distance` is "
        "1 - similarity / 100 then, and must not be compared with distances of other backends."
    )
    confidence: float | None = Field(
        description="Calibrated probability in percent, at even prior, of one person; null without calibration."
    )
    model_name: str
    distance_metric: Metric
    clearance: ClearanceRecord | None = Field(
        description="Why this match does not count: a reviewer said that this face, or one like it, is somebody else."
    )

    @classmethod
    def of(cls, match: Match, source: Box) -> "BlacklistMatch":
        return cls(
            entry_id=match.entry_id,
            name=match.name,
            reason=match.reason,
            reference_image_id=match.reference_image_id,
            identity=f"{IDENTITY_PREFIX}/{match.identity}",
            target_x=match.target.x,
            target_y=match.target.y,
            target_w=match.target.w,
            target_h=match.target.h,
            source_x=source.x,
            source_y=source.y,
            source_w=source.w,
            source_h=source.h,
            verdict=match.grade,
            threshold=match.threshold,
            review_threshold=match.review_threshold,
            distance=match.distance,
            supporting_references=match.supporting,
            margin=match.margin,
            false_alert_probability=match.false_alert_probability,
            similarity=match.similarity,
            confidence=match.confidence,
            model_name=match.model_name,
            distance_metric=match.metric,
            clearance=ClearanceRecord.of(match.clearance) if match.clearance else None,
        )


class QualityRecord(BaseModel):
    """Measures of the picture of a face; null where it takes landmarks that the detector does not give."""

    model_config = ConfigDict(from_attributes=True)

    side: int = Field(description="Pixels of the box's shorter side.")
    confidence: float = Field(description="The detector's own score in [0, 1].")
    brightness: float = Field(description="Mean luma, 0 black to 100 white.")
    sharpness: float = Field(description="0 to 100.")
    shadows: float = Field(description="Percentage of the face that is nearly black.")
    highlights: float = Field(description="Percentage of the face that is nearly white.")
    yaw: float | None = Field(description="Degrees that the head is turned to the person's own left.")
    pitch: float | None = Field(description="Degrees that the head is raised.")
    roll: float | None = Field(description="Degrees that the head is tilted, clockwise as the viewer sees it.")
    features: float | None = Field(description="How marked eyes and mouth are, compared with the whole face.")
    tint: float | None = Field(description="How much more coloured the mouth is than the cheeks.")
    is_upright: bool = Field(description="False: the head is turned in the picture and could not be seen upright.")


class QualityIssueRecord(BaseModel):
    """A limit that the picture of a face misses."""

    model_config = ConfigDict(from_attributes=True)

    issue: QualityIssue
    measure: str
    value: float | None
    limit: float | None
    detail: str = Field(description="The same in words, and how to take a better picture.")


class ProcessedFace(BaseModel):
    face_index: int
    facial_area: FacialArea
    confidence: float
    verdict: Verdict
    explanation: str = Field(description="Why, in words.")
    reasons: list[QualityIssueRecord] = Field(description="What the picture lacks to clear anybody by it.")
    quality: QualityRecord | None = Field(description="Null in results from before it was measured.")
    blacklist_matches: list[BlacklistMatch] = Field(
        description="Nearest first. A match with a `clearance` does not count for the verdict."
    )

    @classmethod
    def of(cls, index: int, screened: ScreenedFace, policy: Policy) -> "ProcessedFace":
        return cls(
            face_index=index,
            facial_area=FacialArea.of(screened.face),
            confidence=screened.face.confidence,
            verdict=screened.verdict,
            explanation=explain(screened, policy),
            reasons=[QualityIssueRecord.model_validate(reason) for reason in screened.reasons],
            quality=QualityRecord.model_validate(screened.quality) if screened.quality else None,
            blacklist_matches=[BlacklistMatch.of(match, screened.face.box) for match in screened.matches],
        )


class CalibrationSummary(BaseModel):
    """What the thresholds of a result rest on."""

    model_config = ConfigDict(from_attributes=True)

    id: int | None = Field(description="Of the collection's own calibration; null: the one that comes with the model.")
    source: str = Field(description="What was measured.")
    faces: int = Field(description="How many faces were searched for it.")
    list_size: int = Field(description="Reference photos in the list.")
    false_alert_rate: float = Field(
        description="Share of faces of people who are not on such a list that `threshold` is expected to match."
    )
    review_false_alert_rate: float = Field(description="The same for `review_threshold`.")


class ItemError(BaseModel):
    """Why this image has no answer; the others of its request are not affected."""

    code: str
    detail: str

    @classmethod
    def of(cls, error: ImageError) -> "ItemError":
        return cls(code=error.code, detail=error.detail)


class WideThreshold(BaseModel):
    """A threshold is larger than the distance of two photos of one person."""

    code: Literal["threshold_too_wide"] = "threshold_too_wide"
    detail: str


class ProcessedImage(BaseModel):
    id: int | None = Field(description="Null where the result could not be stored.")
    stored: bool = Field(description="False only where the disk took nothing: nobody will find this result later.")
    collection: str
    image_path_or_identifier: str = Field(
        description="The path, the URL without credentials and query, the name of an uploaded file, or the SHA-256 of "
        "inline data."
    )
    verdict: Outcome | None = Field(
        description="The gravest verdict on the faces; `no_face` where none was found, null where `error` is given. "
        "Only `clear` is an all-clear."
    )
    faces: list[ProcessedFace]
    smallest_face: int | None = Field(
        description="Pixels from which faces were looked for in this image; a smaller one may be there, unseen. Null: "
        "the detector does not tell."
    )
    error: ItemError | None
    detector_backend: str
    model_name: str
    distance_metric: Metric
    threshold: float
    review_threshold: float
    calibration: CalibrationSummary | None = Field(description="Null where nobody measured false alerts.")
    warnings: list[WideThreshold] = Field(description="Why matches of this result may mean nothing.")
    list_version: int = Field(description="The version of the list that the faces were compared with.")
    created_at: datetime

    @classmethod
    def of(cls, screening: Screening) -> "ProcessedImage":
        return cls(
            id=screening.id if screening.is_stored else None,
            stored=screening.is_stored,
            collection=screening.collection,
            image_path_or_identifier=screening.image_identifier,
            verdict=screening.outcome,
            faces=[ProcessedFace.of(index, face, screening.policy) for index, face in enumerate(screening.faces)],
            smallest_face=screening.smallest_face,
            error=ItemError.of(screening.error) if screening.error else None,
            detector_backend=screening.detector,
            model_name=screening.model_name,
            distance_metric=screening.policy.metric,
            threshold=screening.policy.threshold,
            review_threshold=screening.policy.review_threshold,
            calibration=CalibrationSummary.model_validate(screening.policy.calibration)
            if screening.policy.calibration
            else None,
            warnings=[
                WideThreshold(detail=detail) for detail in wide_thresholds(screening.model_name, screening.policy)
            ],
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
    quality: QualityRecord | None = Field(description="Null for photos from before it was measured.")
    quality_issues: list[QualityIssueRecord] = Field(description="What it lacks by the limits for reference photos.")
    quality_override: str | None = Field(description="Why it was taken nevertheless.")
    created_at: datetime

    @classmethod
    def of(cls, image: ReferenceImage) -> "BlacklistImage":
        issues = ENROLLMENT_LIMITS.reasons(image.quality) if image.quality else ()
        return cls(
            id=image.id,
            identity=f"{IDENTITY_PREFIX}/{image.photo}",
            status=image.status,
            width=image.width,
            height=image.height,
            facial_area=FacialArea.of(image.face),
            confidence=image.face.confidence,
            detector_backend=image.detector,
            quality=QualityRecord.model_validate(image.quality) if image.quality else None,
            quality_issues=[QualityIssueRecord.model_validate(issue) for issue in issues],
            quality_override=image.quality_override,
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
    expires_at: datetime | None = Field(description="From then on it matches nobody and is deleted. Null: never.")

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
            expires_at=entry.expires_at,
        )


class LooksLikeExistingEntry(BaseModel):
    """A new photo matches another entry: one person twice on the list, or two people who look alike."""

    code: Literal["looks_like_existing_entry"]
    detail: str
    photo: str = Field(description="The uploaded file, or the one in the blacklist folder.")
    entry_id: int
    name: str = Field(description="Of the entry.")
    distance: float = Field(description="To its nearest photo.")
    threshold: float = Field(description="Largest distance that matches.")
    distance_metric: Metric

    @classmethod
    def of(cls, warning: LooksLikeEntry) -> "LooksLikeExistingEntry":
        return cls(
            code=warning.code,
            detail=warning.detail,
            photo=_photo_name(warning.photo),
            entry_id=warning.entry_id,
            name=warning.name,
            distance=warning.distance,
            threshold=warning.threshold,
            distance_metric=warning.metric,
        )


class DisagreeingPhotos(BaseModel):
    """A new photo and another one of the same entry do not look like one person."""

    code: Literal["photos_disagree"]
    detail: str
    photos: tuple[str, str] = Field(description="The uploaded file, or the `identity` of a stored photo.")
    outliers: list[str] = Field(
        description="Those of the two that are too far from most of the entry's photos; both, if it has only two."
    )
    distance: float
    threshold: float = Field(description="Largest distance of two photos that are taken for one person's.")
    distance_metric: Metric

    @classmethod
    def of(cls, warning: PhotosDisagree) -> "DisagreeingPhotos":
        return cls(
            code=warning.code,
            detail=warning.detail,
            photos=(_photo_name(warning.photo), _photo_name(warning.other)),
            outliers=[_photo_name(photo) for photo in warning.outliers],
            distance=warning.distance,
            threshold=warning.threshold,
            distance_metric=warning.metric,
        )


class TurnedPhoto(BaseModel):
    """The head lies on its side or stands upside down in a new photo. It is compared upright."""

    code: Literal["photo_turned"]
    detail: str
    photo: str = Field(description="The uploaded file, or the one in the blacklist folder.")
    degrees: int = Field(description="That the head is turned clockwise in the photo as it came: 90, 180 or 270.")
    stored_upright: bool = Field(description="False for a file in the blacklist folder, which stays as it is.")

    @classmethod
    def of(cls, warning: PhotoTurned) -> "TurnedPhoto":
        return cls(
            code=warning.code,
            detail=warning.detail,
            photo=_photo_name(warning.photo),
            degrees=warning.degrees,
            stored_upright=warning.is_stored_upright,
        )


Warnings = Annotated[
    list[Annotated[LooksLikeExistingEntry | DisagreeingPhotos | TurnedPhoto, Field(discriminator="code")]],
    Field(description="What somebody should look at. The photos were taken nevertheless."),
]


class EnrolledRecord(BlacklistRecord):
    warnings: Warnings

    @classmethod
    def of_enrollment(cls, enrollment: Enrollment) -> "EnrolledRecord":
        record = BlacklistRecord.of(enrollment.entry)
        return cls(**dict(record), warnings=_warnings(enrollment.warnings))


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
    warnings: Warnings

    @classmethod
    def of(cls, count: int, enrollment: Enrollment) -> "ImagesAdded":
        return cls(
            images_added=count,
            record=BlacklistRecord.of(enrollment.entry),
            warnings=_warnings(enrollment.warnings),
        )


class SkippedFile(BaseModel):
    file: str
    code: str
    detail: str

    @classmethod
    def of(cls, rejected: RejectedFile) -> "SkippedFile":
        return cls(file=f"{IDENTITY_PREFIX}/{rejected.file}", code=rejected.code, detail=rejected.detail)


class SyncResult(BaseModel):
    """What a synchronisation with the blacklist folder did; files as `blacklist_db/<folder>/<file>`."""

    added: list[str]
    withdrawn: list[str]
    skipped: list[SkippedFile]
    warnings: Warnings
    unchanged: int

    @classmethod
    def of(cls, report: SyncReport) -> "SyncResult":
        return cls(
            added=[f"{IDENTITY_PREFIX}/{file}" for file in report.added],
            withdrawn=[f"{IDENTITY_PREFIX}/{file}" for file in report.withdrawn],
            skipped=[SkippedFile.of(rejected) for rejected in report.skipped],
            warnings=_warnings(report.warnings),
            unchanged=report.unchanged,
        )


class UpgradeStatus(BaseModel):
    """Lists that the model before answers for until the new one has all of their photos."""

    model_name: str = Field(description="The configured model, which the photos are embedded for.")
    answering: list[str] = Field(description="The models that answer meanwhile where a request names none.")
    done: int = Field(description="Reference photos that are embedded for it.")
    total: int = Field(description="Reference photos of these lists.")

    @classmethod
    def of(cls, upgrade: Upgrade | None) -> "UpgradeStatus | None":
        if upgrade is None:
            return None
        return cls(model_name=upgrade.model, answering=list(upgrade.answering), done=upgrade.done, total=upgrade.total)


class HealthStatus(BaseModel):
    status: str = Field(examples=["ok"])
    version: str
    backend: str
    detector_backend: str
    model_name: str
    distance_metric: Metric
    threshold: float = Field(description="Of the default collection, as all below.")
    review_threshold: float
    collections: int
    list_version: int = Field(description="Of the default collection, as the two counts below.")
    entries: int
    reference_images: int
    upgrade: UpgradeStatus | None = Field(description="Of all collections; null where none is being upgraded.")

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
            review_threshold=health.policy.review_threshold,
            collections=health.collections,
            list_version=health.list_version,
            entries=health.entries,
            reference_images=health.reference_images,
            upgrade=UpgradeStatus.of(health.upgrade),
        )


class Alive(BaseModel):
    status: Literal["alive"] = "alive"


class ReadinessChecks(BaseModel):
    database_schema: bool = Field(description="It is the one that this version knows.")
    models: bool = Field(description="The default detector and model are loaded and were run.")
    database_writable: bool = Field(description="A write was committed.")
    storage: bool = Field(description="Photos and copies can be written, and the keys of encrypted ones.")
    index: bool = Field(description="It holds every change of the default collection that was committed.")
    accepting: bool = Field(description="The service was not told to stop.")

    @classmethod
    def of(cls, readiness: Readiness, *, is_stopping: bool) -> "ReadinessChecks":
        return cls(
            database_schema=readiness.database_schema,
            models=readiness.models,
            database_writable=readiness.database_writable,
            storage=readiness.storage,
            index=readiness.index,
            accepting=not is_stopping,
        )


class Ready(BaseModel):
    status: Literal["ready"] = "ready"
    checks: ReadinessChecks
    upgrade: UpgradeStatus | None = Field(description="Null where no list is being upgraded to another model.")


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
    one_to_one_thresholds: dict[Metric, float | None] = Field(
        description="Of two photos, not of a list: measured for this model with this alignment; null: never."
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
                    one_to_one_thresholds=dict(model.thresholds),
                    threshold_source=model.spec.threshold_source,
                    licence=model.spec.licence,
                    available=model.missing is None,
                    missing=model.missing,
                )
                for model in installed.models
            ],
            distance_metrics=list(EMBEDDING_METRICS) if installed.models else [],
        )


class CalibrationRecord(BaseModel):
    """Measured false alerts, and the thresholds that they lead to for the list as it is now."""

    id: int | None = Field(description="Null: the one that comes with the model.")
    source: str = Field(description="What was measured, in words.")
    detector_backend: str
    space: str = Field(description="Names model, weights and alignment.")
    faces: int = Field(description="How many faces of people who are not on the list were searched.")
    measured_list_size: int = Field(description="Reference photos in the list that they were searched in.")
    one_in: int = Field(description="At most one of so many such faces may match.")
    review_one_in: int = Field(description="At most one of so many such faces may match or be possible.")
    created_at: datetime | None
    list_size: int = Field(description="Reference photos in the list now.")
    distance_metric: Metric
    threshold: float
    review_threshold: float
    false_alert_rate: float = Field(description="Expected at `threshold`.")
    review_false_alert_rate: float = Field(description="Expected at `review_threshold`.")

    @classmethod
    def of(cls, in_force: CalibrationInForce) -> "CalibrationRecord":
        calibration, policy, applied = in_force.calibration, in_force.policy, in_force.applied
        measured = calibration.curves[0]
        return cls(
            id=calibration.id,
            source=calibration.source,
            detector_backend=calibration.detector,
            space=calibration.space,
            faces=measured.faces,
            measured_list_size=measured.list_sizes[-1],
            one_in=calibration.budget.one_in,
            review_one_in=calibration.budget.review_one_in,
            created_at=calibration.created_at,
            list_size=applied.list_size,
            distance_metric=policy.metric,
            threshold=policy.threshold,
            review_threshold=policy.review_threshold,
            false_alert_rate=applied.false_alert_rate,
            review_false_alert_rate=applied.review_false_alert_rate,
        )


class ReportedEntry(BaseModel):
    model_config = ConfigDict(from_attributes=True)

    id: int
    name: str


class ReportedPhoto(BaseModel):
    id: int
    entry_id: int
    identity: str

    @classmethod
    def of(cls, photo: ListedPhoto) -> "ReportedPhoto":
        return cls(id=photo.id, entry_id=photo.entry_id, identity=f"{IDENTITY_PREFIX}/{photo.photo}")


class FindingRecord(BaseModel):
    """One thing that somebody should look at."""

    code: FindingCode
    detail: str = Field(description="What was found and what to do about it.")
    entries: list[ReportedEntry]
    photos: list[ReportedPhoto] = Field(
        description="The nearest photos of two entries, the farthest of one, or the weak one."
    )
    distance: float | None = Field(
        description="Of the two photos; of a photo that is unlike the others, from the one in their middle."
    )
    limit: float | None = Field(description="What the distance is compared with.")
    odd_one_out: int | None = Field(
        description="Of the photos that disagree, id of the one that is farthest from the middle; null: only two."
    )
    weaknesses: list[Weakness]
    quality_issues: list[QualityIssueRecord] = Field(description="Limits for reference photos that it misses.")

    @classmethod
    def of(cls, finding: Finding) -> "FindingRecord":
        return cls(
            code=finding.code,
            detail=finding.detail,
            entries=[ReportedEntry.model_validate(person) for person in finding.people],
            photos=[ReportedPhoto.of(photo) for photo in finding.photos],
            distance=finding.distance,
            limit=finding.limit,
            odd_one_out=finding.odd_one_out,
            weaknesses=list(finding.weaknesses),
            quality_issues=[QualityIssueRecord.model_validate(reason) for reason in finding.reasons],
        )


class ExpectedFalseAlerts(BaseModel):
    """Of 1,000 faces of people who are not on the list, by what was measured; null where nobody did."""

    match_per_1000: float | None = Field(description="How many will get the verdict `match`.")
    review_per_1000: float | None = Field(description="How many will get `match` or `possible`.")
    evidence: str = Field(description="What this rests on, or why it is not known.")
    calibration: CalibrationSummary | None


class ListReportRecord(BaseModel):
    """What is wrong with the list as it was at `list_version`."""

    collection: str
    list_version: int
    created_at: datetime
    model_name: str
    distance_metric: Metric
    threshold: float = Field(description="Largest distance of entries that are taken for one person.")
    review_threshold: float = Field(description="Largest distance of entries that look alike.")
    one_to_one_threshold: float | None = Field(
        description="Largest distance of two photos of one person; null where nobody measured it."
    )
    entries: int
    reference_images: int
    quality_not_measured: int = Field(description="Photos from before their quality was measured.")
    false_alerts: ExpectedFalseAlerts
    totals: dict[FindingCode, int | None] = Field(
        description="How many findings there are of each kind; null: it cannot be told, because Rekognition keeps the "
        "faces or because the model has no threshold for it."
    )
    findings: list[FindingRecord] = Field(description="The most urgent first, at most `limit` of each kind.")
    left_out: list[SkippedFile] = Field(
        description="Files in the blacklist folder that are no reference photos, and why: whoever they show is on no "
        "list. Only in the report on the default collection."
    )

    @classmethod
    def of(cls, report: ListReport) -> "ListReportRecord":
        applied = report.policy.calibration
        return cls(
            collection=report.collection,
            list_version=report.version,
            created_at=report.made_at,
            model_name=report.model_name,
            distance_metric=report.metric,
            threshold=report.policy.threshold,
            review_threshold=report.policy.review_threshold,
            one_to_one_threshold=report.one_to_one_threshold,
            entries=report.entries,
            reference_images=report.photos,
            quality_not_measured=report.not_measured,
            false_alerts=ExpectedFalseAlerts(
                match_per_1000=report.false_alerts_per_1000,
                review_per_1000=report.review_false_alerts_per_1000,
                evidence=report.evidence,
                calibration=CalibrationSummary.model_validate(applied) if applied else None,
            ),
            totals=dict(report.totals),
            findings=[FindingRecord.of(finding) for finding in report.findings],
            left_out=[SkippedFile.of(rejected) for rejected in report.left_out],
        )


def _pixel(point: Point | None) -> PixelPoint | None:
    return (round(point.x), round(point.y)) if point else None


def _warnings(
    warnings: Iterable[EnrollmentWarning],
) -> list[LooksLikeExistingEntry | DisagreeingPhotos | TurnedPhoto]:
    return [_warning(warning) for warning in warnings]


def _warning(warning: EnrollmentWarning) -> LooksLikeExistingEntry | DisagreeingPhotos | TurnedPhoto:
    match warning:
        case LooksLikeEntry():
            return LooksLikeExistingEntry.of(warning)
        case PhotosDisagree():
            return DisagreeingPhotos.of(warning)
        case PhotoTurned():
            return TurnedPhoto.of(warning)


def _photo_name(photo: PhotoName) -> str:
    return f"{IDENTITY_PREFIX}/{photo.name}" if photo.is_stored else photo.name
