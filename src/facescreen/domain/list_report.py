"""What is wrong with a list of people, and what somebody should do about it."""

from collections.abc import Mapping
from dataclasses import dataclass
from datetime import datetime
from enum import StrEnum

from facescreen.domain.distances import Metric
from facescreen.domain.quality import QualityReason
from facescreen.domain.screening import Policy
from facescreen.errors import HiddenFileError, RecycleBinError, RejectedFile


class FindingCode(StrEnum):
    """What a finding is about, the most urgent first."""

    ENTRY_WITHOUT_PHOTOS = "entry_without_photos"
    """No photo of the entry can match anybody."""
    DUPLICATE_ENTRIES = "duplicate_entries"
    """Two entries are within the match threshold: one person twice."""
    PHOTOS_DISAGREE = "photos_disagree"
    """Photos of one entry are farther apart than photos of one person are."""
    LOOK_ALIKES = "look_alikes"
    """Two entries are within the review threshold: each raises alerts for the other."""
    WEAK_PHOTO = "weak_photo"
    """A photo that finds its person less surely than it could."""


class Weakness(StrEnum):
    """Why a photo is weak, apart from what its picture lacks."""

    NOT_EMBEDDED = "not_embedded"
    """It has no embedding of the model, so that no face is compared with it."""
    OUTLIER = "outlier"
    """It does not look like the other photos of its entry."""
    OVERRIDDEN = "overridden"
    """It was enrolled though it misses a limit."""


URGENT = frozenset({FindingCode.ENTRY_WITHOUT_PHOTOS, FindingCode.DUPLICATE_ENTRIES, FindingCode.PHOTOS_DISAGREE})
"""What makes the list wrong; the rest makes it less sure."""


@dataclass(frozen=True, slots=True)
class ListedPerson:
    """An entry, by id and name."""

    id: int
    name: str


@dataclass(frozen=True, slots=True)
class ListedPhoto:
    """A reference image of an entry; ``photo`` as in :class:`facescreen.domain.blacklist.ReferenceImage`."""

    id: int
    entry_id: int
    photo: str


@dataclass(frozen=True, slots=True)
class Finding:
    """One thing that somebody should look at.

    Attributes:
        people: whom it is about; two where entries are compared.
        photos: which photos it is about: the nearest two of two entries, those of one entry that are farthest apart,
            or the weak one.
        distance: of the two photos, or of an outlier from the photo in the middle of its entry.
        limit: what the distance is compared with.
        odd_one_out: id of the photo that is farthest from the one in the middle, ``None`` where there are only two.
        weaknesses, reasons: why a photo is weak.
    """

    code: FindingCode
    people: tuple[ListedPerson, ...]
    photos: tuple[ListedPhoto, ...] = ()
    distance: float | None = None
    limit: float | None = None
    odd_one_out: int | None = None
    weaknesses: tuple[Weakness, ...] = ()
    reasons: tuple[QualityReason, ...] = ()

    @property
    def detail(self) -> str:
        """What was found and what to do about it, as one sentence."""
        names = " and ".join(person.name for person in self.people)
        measured = "" if self.distance is None else f" (distance {self.distance:.4g}, limit {self.limit:.4g})"
        match self.code:
            case FindingCode.ENTRY_WITHOUT_PHOTOS:
                return f"no photo of {names} can match anybody: add a photo, or delete the entry"
            case FindingCode.DUPLICATE_ENTRIES:
                return (
                    f"{names} look like one person{measured}: look at both photos, and if they show the same person "
                    "add the photos of one entry to the other and delete it"
                )
            case FindingCode.PHOTOS_DISAGREE if self.odd_one_out is None:
                return (
                    f"two photos of {names} do not look like one person{measured}: look at both, and delete the one "
                    "that shows somebody else"
                )
            case FindingCode.PHOTOS_DISAGREE:
                return (
                    f"the photos of {names} do not look like one person{measured}: look at photo {self.odd_one_out} "
                    "first, and delete what shows somebody else"
                )
            case FindingCode.LOOK_ALIKES:
                return (
                    f"{names} look alike and will raise false alerts for each other{measured}: compare every alert "
                    "with the photos of both, and add clearer photos of each"
                )
            case FindingCode.WEAK_PHOTO:
                causes = [_ADVICE[weakness] for weakness in self.weaknesses]
                return f"a photo of {names} is weak: {'; '.join(causes + [reason.detail for reason in self.reasons])}"


_ADVICE = {
    Weakness.NOT_EMBEDDED: "no face is compared with it: run facescreen reindex, or replace it if it cannot be read",
    Weakness.OUTLIER: "it does not look like the others: look whether it shows the same person",
    Weakness.OVERRIDDEN: "it was enrolled although it misses a limit: replace it when there is a better one",
}


_LEFT_OUT_ON_PURPOSE = {HiddenFileError.code, RecycleBinError.code}


@dataclass(frozen=True, slots=True)
class ListReport:
    """What is wrong with a collection, as it was at one version.

    Attributes:
        policy: what entries are duplicates or look-alikes by, as screened faces are judged.
        one_to_one_threshold: the largest distance of two photos of one person, ``None`` where nobody measured it.
        entries, photos: how many there are.
        not_measured: photos whose quality was never measured.
        totals: how many findings there are of each kind; ``None`` for a kind that cannot be told, because an outside
            service keeps the faces or a threshold was never measured.
        findings: the most urgent first; no more of each kind than were asked for.
        left_out: files of the blacklist folder that are no reference photos, in the report on the default collection,
            which they would be enrolled in.
    """

    collection: str
    version: int
    made_at: datetime
    model_name: str
    metric: Metric
    policy: Policy
    one_to_one_threshold: float | None
    entries: int
    photos: int
    not_measured: int
    totals: Mapping[FindingCode, int | None]
    findings: tuple[Finding, ...]
    left_out: tuple[RejectedFile, ...] = ()

    @property
    def is_urgent(self) -> bool:
        """Whether the list holds what makes it wrong, or lacks somebody who was put into the folder."""
        return any(self.totals[code] for code in URGENT) or any(
            rejected.code not in _LEFT_OUT_ON_PURPOSE for rejected in self.left_out
        )

    @property
    def false_alerts_per_1000(self) -> float | None:
        """Faces with the verdict ``match`` expected among 1,000 of nobody on the list; ``None`` without evidence."""
        calibration = self.policy.calibration
        return None if calibration is None else 1000.0 * calibration.false_alert_rate

    @property
    def review_false_alerts_per_1000(self) -> float | None:
        """The same for ``match`` and ``possible`` together."""
        calibration = self.policy.calibration
        return None if calibration is None else 1000.0 * calibration.review_false_alert_rate

    @property
    def evidence(self) -> str:
        """What the expected false alerts rest on, or why there are none."""
        calibration = self.policy.calibration
        if calibration is None and self.metric is Metric.SIMILARITY:
            return "false alerts by the similarity of an outside service were not measured"
        if calibration is None:
            return f"false alerts of {self.model_name} were not measured: run facescreen calibrate with your own photos"
        return f"{calibration.source}; {calibration.list_size} reference photos in the list"
