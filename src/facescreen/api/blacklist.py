"""Keep the list."""

from typing import Annotated

from fastapi import APIRouter, Body, File, Form, Path, Query, Request, Response, UploadFile

from facescreen.api.dependencies import ServicesDep
from facescreen.api.examples import UPDATE
from facescreen.api.files import accepted_type, file_response
from facescreen.api.operation import Operation, needs
from facescreen.api.problems import AWS_ERRORS, responses
from facescreen.api.schemas import (
    NO_NUL,
    AwareMoment,
    BlacklistRecord,
    CollectionName,
    EnrolledRecord,
    ImagesAdded,
    ListReportRecord,
    Name,
    QualityOverride,
    Reason,
    SyncResult,
    UpdateRequest,
    UploadedFile,
)
from facescreen.domain.access import Scope
from facescreen.domain.blacklist import DEFAULT_COLLECTION
from facescreen.errors import (
    BodyTooLargeError,
    CollectionNotFoundError,
    DuplicateEntryError,
    EmbeddingsUnreadableError,
    EnrollmentRejectedError,
    EntryNotFoundError,
    EntryPendingError,
    ExpiryInPastError,
    FolderEmptyError,
    ImageTooLargeError,
    ImageUndecodableError,
    ReferenceImageNotFoundError,
    StorageFullError,
    ThresholdRequiredError,
    TooManyImagesError,
)
from facescreen.images.sources import printable
from facescreen.services.blacklist import EnrollmentOptions, Person, Photo
from facescreen.services.enrollment import FaceSelection
from facescreen.services.list_report import MAX_FINDINGS
from facescreen.wording import AnyCase

router = APIRouter(route_class=Operation, prefix="/blacklist", tags=["blacklist"])

EntryId = Annotated[int, Path(ge=1, le=2**63 - 1)]
ImageId = Annotated[int, Path(ge=1, le=2**63 - 1)]
Photos = Annotated[list[UploadedFile], File(min_length=1, description="One or more photos of this person.")]
Selection = Annotated[
    FaceSelection,
    AnyCase(),
    Form(description="`single`: each photo must hold exactly one face; `largest`: take the largest one."),
]
Override = Annotated[
    QualityOverride | None,
    Form(
        description="Why photos are to be taken that miss the quality limits, such as `only photo that exists`. "
        "Recorded with each photo that needs it.",
    ),
]
ExpiresAt = Annotated[
    AwareMoment | None,
    Form(
        description="From then on the entry matches nobody and is deleted. With the offset from UTC, such as "
        "`2099-12-31T23:59:59Z`. Default: never.",
    ),
]
RejectDuplicates = Annotated[bool, Form(description="Refuse photos that look like another entry.")]
Within = Annotated[
    CollectionName, Query(alias="collection", description="The collection that the entry is in, or goes into.")
]


@router.post(
    "/",
    dependencies=needs(Scope.MANAGE, work=True),
    summary="Enroll a person",
    status_code=201,
    responses=responses(
        CollectionNotFoundError,
        EnrollmentRejectedError,
        DuplicateEntryError,
        ExpiryInPastError,
        ThresholdRequiredError,
        EmbeddingsUnreadableError,
        TooManyImagesError,
        BodyTooLargeError,
        StorageFullError,
        *AWS_ERRORS,
    ),
)
async def create_entry(
    name: Annotated[Name, Form(description="Such as `Eileen Collins`.")],
    images: Photos,
    request: Request,
    response: Response,
    services: ServicesDep,
    reason: Annotated[Reason, Form(description="Such as `asked to leave on 2026-11-02`.")] = "",
    face_selection: Selection = FaceSelection.SINGLE,
    expires_at: ExpiresAt = None,
    quality_override: Override = None,
    *,
    reject_duplicates: RejectDuplicates = False,
    collection: Within = DEFAULT_COLLECTION,
) -> EnrolledRecord:
    """All photos are taken or none: one that shows no single face well enough is named in the error, with the cause.

    A photo that looks like another entry, and photos that do not look like one person, are taken with a warning.
    """
    options = EnrollmentOptions(face_selection, quality_override, reject_duplicates)
    person = Person(name, reason, expires_at)
    enrolled = await services.blacklist.create(collection, person, photos=await _read(images), options=options)
    location = request.url_for("get_entry", id=str(enrolled.entry.id))
    if collection != DEFAULT_COLLECTION:
        location = location.include_query_params(collection=collection)
    response.headers["Location"] = str(location.replace(scheme="", netloc=""))
    return EnrolledRecord.of_enrollment(enrolled)


@router.get("/", dependencies=needs(Scope.READ), summary="List entries", responses=responses(CollectionNotFoundError))
async def list_entries(
    response: Response,
    services: ServicesDep,
    offset: Annotated[int, Query(ge=0, le=2**63 - 1)] = 0,
    limit: Annotated[int | None, Query(ge=1, le=2**63 - 1, description="Default: all.")] = None,
    q: Annotated[
        str | None, Query(max_length=200, pattern=NO_NUL, description="Part of the name or the reason.")
    ] = None,
    collection: Within = DEFAULT_COLLECTION,
) -> list[BlacklistRecord]:
    """Oldest first. `X-Total-Count` says how many there are in all."""
    total, entries = await services.blacklist.page(collection, q, offset=offset, limit=limit)
    response.headers["X-Total-Count"] = str(total)
    return [BlacklistRecord.of(entry) for entry in entries]


@router.post(
    "/sync",
    dependencies=needs(Scope.MANAGE, work=True),
    summary="Synchronise with the blacklist folder",
    responses=responses(FolderEmptyError, StorageFullError, *AWS_ERRORS),
)
async def sync_folder(services: ServicesDep) -> SyncResult:
    """Enrolls photos that were dropped into `blacklist_db/<person>/`, withdraws those that were removed from there."""
    return SyncResult.of(await services.sync.sync())


@router.get(
    "/report",
    dependencies=needs(Scope.READ, work=True),
    summary="Check the list",
    responses=responses(CollectionNotFoundError, ThresholdRequiredError, EmbeddingsUnreadableError),
)
async def report_on_list(
    services: ServicesDep,
    limit: Annotated[int, Query(ge=1, le=MAX_FINDINGS, description="Findings of each kind.")] = 100,
    collection: Within = DEFAULT_COLLECTION,
) -> ListReportRecord:
    """People who are on the list twice, photos of somebody else, look-alikes, weak photos, and expected false alerts.

    A list of a hundred thousand photos takes seconds; as long as it does not change, the answer is remembered.
    """
    return ListReportRecord.of(await services.report.report(collection, limit=limit))


@router.get(
    "/{id}/",
    dependencies=needs(Scope.READ),
    summary="Get an entry",
    responses=responses(CollectionNotFoundError, EntryNotFoundError),
)
async def get_entry(
    id: EntryId,  # noqa: A002 - the path's name
    services: ServicesDep,
    collection: Within = DEFAULT_COLLECTION,
) -> BlacklistRecord:
    return BlacklistRecord.of(await services.blacklist.get(collection, id))


@router.put(
    "/{id}/",
    dependencies=needs(Scope.MANAGE),
    summary="Change name, reason or expiry",
    responses=responses(CollectionNotFoundError, EntryNotFoundError, ExpiryInPastError, StorageFullError),
)
async def update_entry(
    id: EntryId,  # noqa: A002 - the path's name
    request: Annotated[UpdateRequest, Body(openapi_examples=UPDATE)],
    services: ServicesDep,
    collection: Within = DEFAULT_COLLECTION,
) -> BlacklistRecord:
    """What is not given stays. Stored results keep the name that they were given under.

    An entry that has expired is as good as deleted: 404.
    """
    return BlacklistRecord.of(await services.blacklist.update(collection, id, request.changes()))


@router.delete(
    "/{id}/",
    dependencies=needs(Scope.MANAGE),
    summary="Delete an entry",
    responses=responses(CollectionNotFoundError, EntryNotFoundError, EntryPendingError, StorageFullError, *AWS_ERRORS),
)
async def delete_entry(
    id: EntryId,  # noqa: A002 - the path's name
    services: ServicesDep,
    collection: Within = DEFAULT_COLLECTION,
) -> BlacklistRecord:
    """The record that was. Its photos, embeddings and stored matches are gone when this answers."""
    return BlacklistRecord.of(await services.blacklist.delete(collection, id))


@router.post(
    "/{id}/images",
    dependencies=needs(Scope.MANAGE, work=True),
    summary="Add photos to an entry",
    responses=responses(
        CollectionNotFoundError,
        EntryNotFoundError,
        EntryPendingError,
        EnrollmentRejectedError,
        DuplicateEntryError,
        ThresholdRequiredError,
        EmbeddingsUnreadableError,
        TooManyImagesError,
        BodyTooLargeError,
        StorageFullError,
        *AWS_ERRORS,
    ),
)
async def add_images(
    id: EntryId,  # noqa: A002 - the path's name
    images: Photos,
    services: ServicesDep,
    face_selection: Selection = FaceSelection.SINGLE,
    quality_override: Override = None,
    *,
    reject_duplicates: RejectDuplicates = False,
    collection: Within = DEFAULT_COLLECTION,
) -> ImagesAdded:
    """All photos are taken or none, with the same errors and warnings as for a new entry."""
    options = EnrollmentOptions(face_selection, quality_override, reject_duplicates)
    enrolled = await services.blacklist.add_images(collection, id, await _read(images), options=options)
    return ImagesAdded.of(len(images), enrolled)


@router.get(
    "/{id}/images/{image_id}",
    dependencies=needs(Scope.READ),
    summary="Get a reference photo",
    response_class=Response,
    responses={
        **responses(
            CollectionNotFoundError,
            EntryNotFoundError,
            ReferenceImageNotFoundError,
            ImageTooLargeError,
            ImageUndecodableError,
            *AWS_ERRORS,
        ),
        **file_response("image/jpeg", "The photo."),
    },
)
async def get_image(
    id: EntryId,  # noqa: A002 - the path's name
    image_id: ImageId,
    request: Request,
    services: ServicesDep,
    collection: Within = DEFAULT_COLLECTION,
) -> Response:
    """Upright and re-encoded: no EXIF, no GPS."""
    photo = await services.blacklist.image(collection, id, image_id)
    return Response(photo, media_type=accepted_type(request, "image/jpeg"))


@router.delete(
    "/{id}/images/{image_id}",
    dependencies=needs(Scope.MANAGE),
    summary="Delete a reference photo",
    responses=responses(
        CollectionNotFoundError,
        EntryNotFoundError,
        EntryPendingError,
        ReferenceImageNotFoundError,
        StorageFullError,
        *AWS_ERRORS,
    ),
)
async def delete_image(
    id: EntryId,  # noqa: A002 - the path's name
    image_id: ImageId,
    services: ServicesDep,
    collection: Within = DEFAULT_COLLECTION,
) -> BlacklistRecord:
    """The record without the photo. An entry that is left without photos stays, and matches nobody.

    A face that a Rekognition client indexed and made nobody's goes with its only photo.
    """
    return BlacklistRecord.of(await services.blacklist.delete_image(collection, id, image_id))


async def _read(files: list[UploadFile]) -> list[Photo]:
    return [Photo(printable(file.filename or "unnamed"), await file.read()) for file in files]
