"""Everything that can go wrong, as meanings with stable codes; HTTP knows them only in ``api.problems``.

Codes are part of the public contract: clients branch on them, so they never change their meaning.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import ClassVar


class FacescreenError(Exception):
    """Base of every error that facescreen raises on purpose.

    The message is shown to the caller as it stands, so it never holds a server path, SQL, a name or image data.
    """

    code: ClassVar[str] = "internal_error"


class InputError(FacescreenError):
    """The caller sent something that cannot be used; sending it again will not help."""

    code = "invalid_request"


class UrlNotAllowedError(InputError):
    """The address is not one that this service may dial.

    The message tells what can be seen in the URL itself. Of names and addresses there is one message for every cause,
    else it would tell which internal names exist.
    """

    code = "url_not_allowed"

    def __init__(self, reason: str = "only public addresses and the hosts in URL_ALLOWED_HOSTS are") -> None:
        super().__init__(f"this URL may not be fetched: {reason}")


class FetchFailedError(InputError):
    """The upstream refused, answered with an error status, or spoke something that is not HTTP."""

    code = "fetch_failed"


class FetchTimeoutError(InputError):
    """The upstream did not deliver the whole image before the deadline."""

    code = "fetch_timeout"


class PathNotAllowedError(InputError):
    """The path is not a regular file inside a configured root. The same answer whether or not it exists."""

    code = "path_not_allowed"


class InvalidBase64Error(InputError):
    """The text is neither base64, a data URL, an http(s) URL nor a path."""

    code = "invalid_base64"


class ImageTooLargeError(InputError):
    """The image has more bytes or more pixels than the limits allow."""

    code = "image_too_large"


class ImageUndecodableError(InputError):
    """The bytes claim to be a supported image and are not, or are damaged."""

    code = "image_undecodable"


class UnsupportedFormatError(InputError):
    """The bytes are of no supported image format."""

    code = "unsupported_format"


class TooManyImagesError(InputError):
    """The request holds more images than one request may."""

    code = "too_many_images"


class BodyTooLargeError(InputError):
    """The request body is larger than the limit."""

    code = "body_too_large"


class UnsupportedMediaTypeError(InputError):
    """The body is of another type, or otherwise encoded, than the operation reads; the message says what to send."""

    code = "unsupported_media_type"


class InvalidThresholdError(InputError):
    """The threshold lies outside of the metric's range."""

    code = "invalid_threshold"


class ThresholdRequiredError(InputError):
    """False alerts of the model were never measured, or too few; the caller must give a threshold."""

    code = "threshold_required"


class NoFaceError(InputError):
    """The photo holds no usable face."""

    code = "no_face"


class SeveralFacesError(InputError):
    """The photo holds more than one usable face and the caller asked for exactly one."""

    code = "several_faces"


class FaceUnusableError(InputError):
    """The face is too small, too dark, too blurred or turned too far to recognize somebody by."""

    code = "face_unusable"


class PhotoQualityError(InputError):
    """The picture of the face misses the limits for reference photos."""

    code = "photo_quality"


class ExpiryInPastError(InputError):
    """An entry would have expired before it is stored."""

    code = "expiry_in_past"


class OptionNotAvailableError(InputError):
    """The request needs a choice of detector, model or metric, or embeddings, and the backend has none."""

    code = "option_not_available"


class DuplicateImageError(InputError):
    """The entry already has this photo."""

    code = "duplicate_image"


@dataclass(frozen=True, slots=True)
class RejectedFile:
    """One file of a refused enrollment: its name as the caller gave it, the stable code and the reason."""

    file: str
    code: str
    detail: str


class EnrollmentRejectedError(InputError):
    """At least one photo cannot be enrolled; nothing was stored.

    Attributes:
        files: what is wrong with each refused file, in the order of the request.
    """

    code = "enrollment_rejected"

    def __init__(self, files: Sequence[RejectedFile]) -> None:
        self.files = tuple(files)
        super().__init__("; ".join(f"{rejected.file}: {rejected.detail}" for rejected in files))


class NotInPersonFolderError(InputError):
    """The photo lies beside or below the folders of the blacklist folder, so nobody knows whose it is."""

    code = "not_in_person_folder"


class FileNameUnusableError(InputError):
    """The photo's name is not UTF-8 or has control characters, or its folder's is none that a person can have."""

    code = "file_name_unusable"


class HiddenFileError(InputError):
    """The name of the file or folder begins with a dot, so it is none of the photos."""

    code = "hidden_file"

    def __init__(self) -> None:
        super().__init__("it is hidden, for its name begins with a dot; rename it if it is a photo")


class NotAFileError(InputError):
    """It is a link, a pipe, a socket or a device, and is not followed or read."""

    code = "not_a_file"


class RecycleBinError(InputError):
    """A recycle bin, the snapshots or the thumbnails of a network drive: whoever is only there is on no list."""

    code = "recycle_bin"

    def __init__(self) -> None:
        super().__init__("it is a recycle bin, snapshot or thumbnail folder; nobody in it is on the list")


class FileUnfinishedError(InputError):
    """The file is named as what is still being copied or downloaded."""

    code = "file_unfinished"

    def __init__(self) -> None:
        super().__init__("it is named as what is still being copied; rename it when it is whole")


class FolderWithoutPhotosError(InputError):
    """The folder is empty, so nobody is on the list because of it."""

    code = "folder_without_photos"

    def __init__(self) -> None:
        super().__init__("the folder is empty")


class FileNotListedError(InputError):
    """The file is in the blacklist folder and no reference photo: nobody has synchronised since it came."""

    code = "file_not_listed"

    def __init__(self) -> None:
        super().__init__("it is no reference photo; synchronise, which enrolls it or says why not")


class PhotoUnreadableError(InputError):
    """The file belongs to another user, the disk is failing, or the photo is encrypted and its key is not there."""

    code = "photo_unreadable"


class FolderEmptyError(InputError):
    """The blacklist folder holds no photo at all though the list does: more likely a missing mount than a wish."""

    code = "blacklist_folder_empty"


class NothingToScreenError(FacescreenError):
    """No file was named that begins like a picture."""

    code = "nothing_to_screen"


class EvaluationDataError(FacescreenError):
    """The photos, pairs or groups to measure with are not what they must be."""

    code = "evaluation_data"


class CalibrationEvidenceError(InputError):
    """Too few faces or reference photos were there to measure false alerts with."""

    code = "calibration_evidence"


class UnauthenticatedError(FacescreenError):
    """No valid API key came with the request. One message for every cause."""

    code = "unauthenticated"

    def __init__(self) -> None:
        super().__init__("a valid API key is needed, as `Authorization: Bearer <key>` or `X-API-Key: <key>`")


class ScopeMissingError(FacescreenError):
    """The API key does not allow this operation."""

    code = "scope_missing"


class LocalOnlyError(FacescreenError):
    """Without API keys, requests are taken from this machine only, and from no page of another site."""

    code = "local_only"

    def __init__(self) -> None:
        super().__init__(
            "there is no API key yet, so only requests from this machine and from no page of another site are taken"
        )


class NotFoundError(FacescreenError):
    """Nothing has this id."""

    code = "not_found"


class EntryNotFoundError(NotFoundError):
    """No blacklist entry has this id.

    Attributes:
        elsewhere: name of another collection that has the entry, for callers who may read the list. Not in the message.
    """

    code = "entry_not_found"

    def __init__(self, message: str, *, elsewhere: str | None = None) -> None:
        self.elsewhere = elsewhere
        super().__init__(message)


class CollectionNotFoundError(NotFoundError):
    """No collection has this name."""

    code = "collection_not_found"


class CalibrationNotFoundError(NotFoundError):
    """False alerts were not measured for the collection, or never for the model."""

    code = "calibration_not_found"


class ReferenceImageNotFoundError(NotFoundError):
    """The entry has no reference image with this id."""

    code = "image_not_found"


class ResultNotFoundError(NotFoundError):
    """No stored result has this id, or it has no picture."""

    code = "result_not_found"


class FaceNotFoundError(NotFoundError):
    """The result has no face of this number."""

    code = "face_not_found"


class MatchNotFoundError(NotFoundError):
    """The face has no match of this entry."""

    code = "match_not_found"


class ClearanceNotFoundError(NotFoundError):
    """Nobody said that this face is not the entry's person, or it was undone."""

    code = "clearance_not_found"


class ConflictError(FacescreenError):
    """The request contradicts the present state; another one may have to come first."""

    code = "conflict"


class CollectionExistsError(ConflictError):
    """A collection of this name exists already."""

    code = "collection_exists"


class DefaultCollectionError(ConflictError):
    """The default collection cannot be deleted."""

    code = "default_collection"


class DuplicateEntryError(ConflictError):
    """The list has an entry that looks like the same person; nothing was stored.

    Attributes:
        files: for each photo the entries that it looks like, in the order of the request.
    """

    code = "duplicate_entry"

    def __init__(self, files: Sequence[RejectedFile]) -> None:
        self.files = tuple(files)
        super().__init__("; ".join(f"{rejected.file}: {rejected.detail}" for rejected in files))


class EntryPendingError(ConflictError):
    """The entry is being enrolled or withdrawn at this moment."""

    code = "entry_pending"


class EntryChangedError(ConflictError):
    """The entry's photos changed while it was worked with; look at them again."""

    code = "entry_changed"


class PictureGoneError(ConflictError):
    """The result has no readable picture any more."""

    code = "picture_gone"


class IdempotencyKeyInvalidError(InputError):
    """The idempotency key is not one of 1 to 255 visible ASCII characters."""

    code = "idempotency_key_invalid"


class IdempotencyKeyReusedError(InputError):
    """The idempotency key was used for another request."""

    code = "idempotency_key_reused"


class IdempotencyInProgressError(ConflictError):
    """The first request with this idempotency key is still running."""

    code = "idempotency_in_progress"


class IdempotencyOutcomeUnknownError(ConflictError):
    """The first request with this idempotency key took effect, and its answer is gone; look at what is there."""

    code = "idempotency_outcome_unknown"


class NotReadyError(FacescreenError):
    """What the request needs is not on this machine yet; the message names the command that brings it."""


class WeightsMissingError(NotReadyError):
    """The weights of the chosen model are not on this machine."""

    code = "weights_missing"


class PackageMissingError(NotReadyError):
    """The chosen detector or model needs a Python package that is not installed."""

    code = "package_missing"


class EmbeddingsMissingError(NotReadyError):
    """The list has too many photos without embeddings of the chosen model to compute them in a request."""

    code = "embeddings_missing"


class EmbeddingsUnreadableError(NotReadyError):
    """Embeddings are encrypted, and their keys do not open them: dropped, somebody else's, or the data were changed."""

    code = "embeddings_unreadable"


class UnavailableError(FacescreenError):
    """A passing condition: the same request may succeed later."""

    retry_after_seconds: int = 1


class OverloadedError(UnavailableError):
    """More work is waiting than the service admits."""

    code = "overloaded"


class RateLimitedError(UnavailableError):
    """The key or the address has sent more requests than it may in the present window."""

    code = "rate_limited"

    def __init__(self, retry_after_seconds: int) -> None:
        self.retry_after_seconds = retry_after_seconds
        super().__init__("too many requests; try again later")


class DeadlineExceededError(UnavailableError):
    """The request took longer than REQUEST_TIMEOUT_SECONDS and was stopped; what was not finished was not kept."""

    code = "deadline_exceeded"


class UnreadyError(UnavailableError):
    """The service is starting, stopping, or cannot write or search at the moment."""

    code = "not_ready"


class DatabaseBusyError(UnavailableError):
    """Another process held the database for longer than the busy timeout."""

    code = "database_busy"


class StorageFullError(UnavailableError):
    """The disk is full, read-only or failing, or a file another user's or moved away; searches go on."""

    code = "storage_full"
    retry_after_seconds = 60


class AwsError(UnavailableError):
    """AWS did not do what was asked of it; nothing here was lost, and the same request may succeed later."""

    code = "aws_error"
    retry_after_seconds = 5


class AwsThrottledError(AwsError):
    """AWS asks to be called less often, after every retry."""

    code = "aws_throttled"


class AwsTimeoutError(AwsError):
    """AWS did not answer before the deadline."""

    code = "aws_timeout"


class AwsUnreachableError(AwsError):
    """There is no connection to AWS, or it broke."""

    code = "aws_unreachable"


class AwsServiceError(AwsError):
    """AWS answered with an error of its own, or with something that is no answer."""

    code = "aws_service_error"


class AwsCredentialsError(AwsError):
    """AWS takes the credentials for missing, wrong or expired."""

    code = "aws_credentials_rejected"
    retry_after_seconds = 60


class AwsAccessDeniedError(AwsError):
    """The credentials are good, but do not allow this call."""

    code = "aws_access_denied"
    retry_after_seconds = 60


class AwsBucketMissingError(AwsError):
    """The configured bucket does not exist."""

    code = "aws_bucket_missing"
    retry_after_seconds = 60


class AwsCollectionMissingError(AwsError):
    """The collection does not exist in Rekognition any more."""

    code = "aws_collection_missing"
    retry_after_seconds = 60


class AwsQuotaError(AwsError):
    """A limit of the AWS account is reached."""

    code = "aws_quota_exceeded"
    retry_after_seconds = 60


class BackupError(FacescreenError):
    """The file is no backup, a harmed one or one of a newer version, or there is no room for it."""

    code = "backup_unusable"


class DataInUseError(FacescreenError):
    """Other processes work on the data, or there are data that a restored backup would replace."""

    code = "data_in_use"


class StartupError(FacescreenError):
    """The service refuses to start; the message is one line that says what to do."""

    code = "startup_refused"
