"""Settings: environment variables or ``.env``, read once, frozen, passed down; see ``docs/configuration.md``."""

import os
import re
from pathlib import Path
from typing import Annotated, Literal, get_args

from pydantic import AfterValidator, BeforeValidator, Field, SecretStr, ValidationError, ValidationInfo, field_validator
from pydantic_settings import BaseSettings, NoDecode, SettingsConfigDict

from facescreen import notation
from facescreen.domain.distances import EmbeddingMetric, Metric
from facescreen.environment import encoding_of, require_known_lines, require_known_variables
from facescreen.errors import StartupError
from facescreen.wording import AnyCase, said

DetectorName = Literal[
    "centerface",
    "mtcnn",
    "yunet",
    "retinaface",
    "dlib",
    "opencv",
    "ssd",
    "mediapipe",
    "fastmtcnn",
    "yolov8n",
    "yolov8m",
    "yolov8l",
    "yolov11n",
    "yolov11s",
    "yolov11m",
    "yolov11l",
    "yolov12n",
    "yolov12s",
    "yolov12m",
    "yolov12l",
]
"""Every detector that DeepFace offers, by DeepFace's names."""

ModelName = Literal[
    "SFace",
    "Dlib",
    "ArcFace",
    "GhostFaceNet",
    "Buffalo_L",
    "Facenet",
    "Facenet512",
    "VGG-Face",
    "OpenFace",
    "DeepFace",
    "DeepID",
]
"""Every recognition model that DeepFace offers, by DeepFace's names."""

AnyDetector = Annotated[DetectorName, AnyCase()]
AnyModel = Annotated[ModelName, AnyCase()]
AnyMetric = Annotated[EmbeddingMetric, AnyCase()]
Folder = Annotated[Path, BeforeValidator(notation.named), AfterValidator(notation.folder)]
Parts = BeforeValidator(notation.parts)
Folders = Annotated[tuple[Folder, ...], NoDecode, Parts]
Hosts = Annotated[tuple[Annotated[str, AfterValidator(notation.host_and_port)], ...], NoDecode, Parts]
Origins = Annotated[tuple[Annotated[str, AfterValidator(notation.origin)], ...], NoDecode, Parts]
AccessKeys = Annotated[tuple[SecretStr, ...], NoDecode, Parts]
Rate = Annotated[str, AfterValidator(notation.rate)]
WebAddress = Annotated[str, AfterValidator(notation.web_address)]

OWN_PATHS = frozenset({"api", "docs", "metrics", "openapi.json", "redoc", "rekognition", "static-offline-docs"})
"""First parts of all paths of the service. Below one of them it could not be told whether a proxy cut a prefix off."""


class Settings(BaseSettings):
    """One field per environment variable of the same name in capitals."""

    model_config = SettingsConfigDict(env_file=".env", frozen=True, extra="ignore", hide_input_in_errors=True)

    face_processing_backend: Annotated[Literal["deepface", "aws_rekognition"], AnyCase()] = Field(
        default="deepface",
        description="Who detects and recognizes: `deepface` is this machine, `aws_rekognition` is Amazon Rekognition.",
    )
    detector_backend: AnyDetector = Field(default="centerface", description="Detector where a request names none.")
    model_name: AnyModel = Field(default="SFace", description="Recognition model where a request names none.")
    distance_metric: AnyMetric = Field(default=Metric.COSINE, description="Distance metric where a request names none.")
    match_threshold: float | None = Field(
        default=None,
        ge=0,
        allow_inf_nan=False,
        description=(
            "Largest distance that matches, for `MODEL_NAME` and `DISTANCE_METRIC`, where a request gives none. "
            "Empty: chosen by `FALSE_ALERT_BUDGET`; with `aws_rekognition` 0.2, Rekognition's similarity 80."
        ),
    )
    review_threshold: float | None = Field(
        default=None,
        ge=0,
        allow_inf_nan=False,
        description=(
            "Largest distance that is `possible`, in the same way. Empty: chosen by `REVIEW_FALSE_ALERT_BUDGET`; with "
            "`aws_rekognition` the match threshold, so that nothing is `possible`."
        ),
    )
    false_alert_budget: int = Field(
        default=1500,
        ge=1,
        description=(
            "At most one of so many faces of people who are not on the list gets the verdict `match`. It holds for "
            "what was measured for the model; `facescreen calibrate` stores a budget of its own."
        ),
    )
    review_false_alert_budget: int = Field(
        default=50, ge=1, description="The same for `match` and `possible` together."
    )
    detector_max_side: int | None = Field(
        default=None,
        ge=160,
        le=8192,
        description=(
            "Detectors see the image scaled down to this longest side, in pixels. Empty: 768 for `centerface`, 640 for "
            "`yunet`, 1024 for others. `centerface` sees very large images at a larger scale, part by part."
        ),
    )

    blacklist_db_path: Folder = Field(
        default=Path("blacklist_db"), description="Reference photos, one folder per person."
    )
    processed_images_output_dir: Folder = Field(
        default=Path("processed_images_output"), description="Upright, re-encoded copies of screened images."
    )
    database_url: Annotated[str, AfterValidator(notation.database)] = Field(
        default="sqlite+aiosqlite:///data/facescreen.db",
        description="The SQLite database: a path, or SQLAlchemy's URL of one.",
    )
    deepface_home: Folder = Field(
        default=Path.home(), description="Weights of optional models are in `.deepface/weights` below this folder."
    )

    image_input_roots: Folders = Field(
        default=(Path("samples"),),
        description="Folders whose images a request may name by path, separated by commas. Empty: path input is off.",
    )
    url_allowed_hosts: Hosts = Field(
        default=(),
        description="Host names that may be fetched though they resolve to private addresses, separated by commas.",
    )
    fetch_timeout_seconds: float = Field(default=10.0, gt=0, le=300, description="Deadline for one whole download.")
    max_image_bytes: int = Field(default=20_000_000, ge=1_000, description="Largest encoded image, in bytes.")
    max_image_pixels: int = Field(
        default=50_000_000, ge=10_000, description="Largest decoded image, width times height."
    )
    max_images_per_request: int = Field(default=32, ge=1, le=1000, description="Images in one request.")
    max_body_bytes: int = Field(default=100_000_000, ge=10_000, description="Largest request body, in bytes.")
    max_concurrent_requests: int | None = Field(
        default=None,
        ge=1,
        le=1024,
        description=(
            "Requests that compute with images at the same time, per worker. Empty: one for each processor, shared by "
            "the workers; with `aws_rekognition` 8."
        ),
    )
    max_queued_requests: int | None = Field(
        default=None,
        ge=0,
        description=(
            "Requests that wait for those, per worker; above it: 503 `overloaded`. Empty: half as many as may run, "
            "so that waiting takes less than working."
        ),
    )
    request_timeout_seconds: float = Field(
        default=60.0, gt=0, le=3600, description="Deadline for one whole request; after it: 504, and its work stops."
    )
    idempotency_hours: float = Field(
        default=24.0, gt=0, le=720, description="How long the answer to an `Idempotency-Key` is kept, encrypted."
    )
    inline_reindex_limit: int = Field(
        default=100,
        ge=0,
        description="Photos that a request may embed for a model that is new to the list; above: `facescreen reindex`.",
    )

    aws_region: str | None = Field(
        default=None, description="Region of Rekognition and S3. Empty: what the AWS credentials chain says."
    )
    aws_s3_bucket_name: Annotated[str, AfterValidator(notation.bucket)] | None = Field(
        default=None, description="Existing bucket that keeps reference photos; needed with `aws_rekognition`."
    )
    aws_rekognition_collection_id: str = Field(
        default="facescreen",
        pattern=r"^[a-zA-Z0-9_.\-]{1,180}$",
        description="Rekognition collection of the default list, created if missing; others are `<this>.<collection>`.",
    )
    aws_endpoint_url: WebAddress | None = Field(
        default=None, description="Address to call instead of AWS, for example another facescreen."
    )
    aws_endpoint_url_rekognition: WebAddress | None = Field(
        default=None, description="The same for Rekognition alone; it comes first."
    )
    aws_endpoint_url_s3: WebAddress | None = Field(default=None, description="The same for S3 alone; it comes first.")
    aws_keep_local_copy: bool = Field(
        default=False, description="Keep reference photos in `BLACKLIST_DB_PATH` as well as in the bucket."
    )
    aws_connect_timeout_seconds: float = Field(
        default=3.0, gt=0, le=60, description="Longest wait for a connection to AWS."
    )
    aws_read_timeout_seconds: float = Field(default=10.0, gt=0, le=300, description="Longest wait for AWS to answer.")
    aws_deadline_seconds: float = Field(
        default=30.0, gt=0, le=900, description="Longest time for one call of AWS with all its retries."
    )
    rekognition_access_keys: AccessKeys = Field(
        default=(),
        description="Keys that may sign requests to `/rekognition`: `<access key id>:<secret>`, separated by commas.",
    )
    rekognition_allow_unsigned: bool = Field(
        default=False, description="Take unsigned requests to `/rekognition` from this machine."
    )

    auth_mode: Annotated[Literal["keys", "none"], AnyCase()] = Field(
        default="keys",
        description=(
            "`keys`: requests need an API key as soon as one exists; until then only this machine is served. "
            "`none`: whoever reaches the port may do everything."
        ),
    )
    rate_limit_per_key: Rate = Field(
        default="6000/minute", description="Requests that one API key may send, per worker. Empty: any number."
    )
    rate_limit_per_address: Rate = Field(
        default="6000/minute", description="Requests that one address may send, per worker. Empty: any number."
    )
    rate_limit_failures: Rate = Field(
        default="30/minute",
        description="Requests without a valid key that one address may send, per worker. Empty: any number.",
    )
    cors_allowed_origins: Origins = Field(
        default=(), description="Origins whose pages may call the service from a browser, separated by commas."
    )
    docs_enabled: bool = Field(default=True, description="Serve `/docs`, `/redoc` and `/openapi.json`.")
    metrics_enabled: bool = Field(default=True, description="Serve `/metrics`, which needs no key.")

    retention_results_days: float | None = Field(
        default=30.0, gt=0, description="Results without a match or possible match are deleted after so many days."
    )
    retention_hits_days: float | None = Field(
        default=365.0, gt=0, description="Results with one are deleted after so many days."
    )
    retention_copies_days: float | None = Field(
        default=30.0, gt=0, description="Copies of screened images are deleted after so many days; their results stay."
    )
    retention_audit_days: float | None = Field(
        default=730.0, gt=0, description="Events of the audit trail are deleted after so many days."
    )
    retention_sweep_seconds: float = Field(
        default=3600.0, gt=0, le=86400, description="How often that is done, and expired entries are withdrawn."
    )
    encryption_key_dir: Folder | None = Field(
        default=None,
        description=(
            "Folder for the keys that embeddings and photos are encrypted with, outside of the data and their backups. "
            "Empty: nothing is encrypted."
        ),
    )

    host: Annotated[str, AfterValidator(notation.bound_host)] = Field(
        default="127.0.0.1", description="Address that `facescreen serve` binds."
    )
    port: int = Field(default=8000, ge=1, le=65535, description="Port that `facescreen serve` binds.")
    root_path: str = Field(
        default="",
        description="Path of a proxy that the service is reached below, such as `/faces`. Empty: the root.",
    )
    keep_alive_seconds: int = Field(
        default=75,
        ge=1,
        le=86400,
        description=(
            "How long `facescreen serve` keeps a connection without requests. It must be longer than the proxy or "
            "load balancer in front keeps it, usually 60 seconds."
        ),
    )
    workers: int = Field(default=1, ge=1, le=64, description="Worker processes of `facescreen serve`.")
    log_level: Annotated[Literal["debug", "info", "warning", "error"], AnyCase()] = Field(
        default="info", description="Least severe level logged."
    )

    @field_validator("*", mode="before")
    @classmethod
    def _written(cls, value: object, info: ValidationInfo) -> object:
        if not isinstance(value, str):
            return value
        text = notation.bare(value)
        assert info.field_name is not None  # noqa: S101 - this validates fields
        may_be_none = type(None) in get_args(cls.model_fields[info.field_name].annotation)
        return None if may_be_none and not text else text

    @field_validator("root_path")
    @classmethod
    def _is_apart(cls, value: str) -> str:
        path = f"/{value.strip('/')}".rstrip("/")
        if not re.fullmatch(r"(/[A-Za-z0-9_~-][A-Za-z0-9._~-]*)*", path):
            raise ValueError("must be a path such as /faces, of letters, digits and ._~- between slashes")
        if path.removeprefix("/").partition("/")[0] in OWN_PATHS:
            raise ValueError(f"must not begin as a path of the service itself: {', '.join(sorted(OWN_PATHS))}")
        return path

    @field_validator("rekognition_access_keys")
    @classmethod
    def _are_pairs(cls, value: tuple[SecretStr, ...]) -> tuple[SecretStr, ...]:
        if not all(re.fullmatch(r"[A-Za-z0-9_]{4,128}:\S{16,}", pair.get_secret_value()) for pair in value):
            raise ValueError("must be <access key id>:<secret of at least 16 characters>, separated by commas")
        return value


def load_settings() -> Settings:
    """Settings of this process.

    Raises:
        StartupError: a value is wrong, or a name is a setting's misspelt; the message is one line that says what is
            allowed.
    """
    file, known = Path(".env"), [name.upper() for name in Settings.model_fields]
    encoding = encoding_of(file)
    require_known_lines(file, encoding, known)
    require_known_variables(os.environ, known)
    try:
        return Settings(_env_file=file, _env_file_encoding=encoding)
    except ValidationError as error:
        problems = (f"{str(e['loc'][0]).upper()}: {said(e)}" for e in error.errors(include_input=False))
        raise StartupError("; ".join(problems)) from None
