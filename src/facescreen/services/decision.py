"""Candidates and a policy make a verdict. Pure: the same input gives the same answer, always."""

from collections import defaultdict
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import NamedTuple

from facescreen.domain.blacklist import Entry, ReferenceImage
from facescreen.domain.faces import Candidate
from facescreen.domain.quality import SCREENING_LIMITS, FaceQuality, QualityIssue, QualityReason
from facescreen.domain.screening import Clearance, Grade, Match, Policy, Verdict, verdict_of, with_margins


@dataclass(frozen=True, slots=True)
class Cleared:
    """A face that was cleared of being somebody, and its distance from the face that is judged."""

    clearance: Clearance
    distance: float


@dataclass(frozen=True, slots=True)
class Near:
    """What was found near a face.

    Attributes:
        candidates: reference images, in any order; all that are within the review threshold.
        cleared: by entry, the nearest face that was cleared of being that person, if it may be the same face.
    """

    candidates: Sequence[Candidate]
    cleared: Mapping[int, Cleared] = field(default_factory=dict)


class Decision(NamedTuple):
    """The verdict on a face, the matches that it rests on, and what its picture lacks."""

    verdict: Verdict
    matches: tuple[Match, ...]
    reasons: tuple[QualityReason, ...]


def decide(
    near: Near | None,
    *,
    quality: FaceQuality,
    references: Mapping[int, tuple[Entry, ReferenceImage]],
    policy: Policy,
    model_name: str,
    confidence: Callable[[float], float | None],
    false_alert_probability: Callable[[float], float | None],
) -> Decision:
    """The verdict on one face, with matches nearest first.

    A person is a match if their nearest reference is within the threshold, and possible within the review threshold. A
    person does not count if the face is nearer to one that was cleared of being this person than to any reference.
    Whoever resembles their own photos more than the cleared face still counts.

    A picture that misses the screening limits never clears anybody, and takes no match away.

    Args:
        near: ``None`` if the face could not be compared.
        references: what is known of the candidates; one that is not here was withdrawn and matches nobody.
        model_name: the model that the distances come from.
        confidence: calibrated percentage for a distance, or ``None``.
        false_alert_probability: for the distance of a person's nearest reference, or ``None``.
    """
    reasons = SCREENING_LIMITS.reasons(quality)
    if near is None:
        return Decision(Verdict.NOT_SCREENABLE, (), (*reasons, QualityReason(QualityIssue.NOT_COMPARED)))
    people = _people(near, references, policy)
    matches = [
        Match(
            entry_id=person.entry.id,
            name=person.entry.name,
            reason=person.entry.reason,
            reference_image_id=image.id,
            identity=image.photo,
            target=image.face.box,
            grade=person.grade,
            distance=distance,
            threshold=policy.threshold,
            review_threshold=policy.review_threshold,
            supporting=len(person.references),
            confidence=confidence(distance),
            false_alert_probability=false_alert_probability(person.references[0].distance),
            model_name=model_name,
            metric=policy.metric,
            clearance=person.clearance,
        )
        for person in people
        for distance, image in (person.references if policy.all_references else person.references[:1])
    ]
    matches.sort(key=lambda match: (match.distance, match.reference_image_id))
    return Decision(verdict_of(matches, is_legible=not reasons), with_margins(matches), reasons)


class _Reference(NamedTuple):
    distance: float
    image: ReferenceImage


@dataclass(frozen=True, slots=True)
class _Person:
    """A person within the review threshold; ``references`` are those within it, nearest first."""

    entry: Entry
    references: Sequence[_Reference]
    grade: Grade
    clearance: Clearance | None


def _people(near: Near, references: Mapping[int, tuple[Entry, ReferenceImage]], policy: Policy) -> list[_Person]:
    """Everybody within the review threshold."""
    found: dict[int, list[_Reference]] = defaultdict(list)
    for candidate in sorted(near.candidates, key=lambda candidate: (candidate.distance, candidate.reference_image_id)):
        if candidate.reference_image_id in references:
            entry, image = references[candidate.reference_image_id]
            found[entry.id].append(_Reference(candidate.distance, image))
    people = []
    for entry_id, theirs in found.items():
        nearest = theirs[0]
        if (grade := policy.grade(nearest.distance)) is None:
            continue
        within = [reference for reference in theirs if reference.distance <= policy.review_threshold]
        cleared = near.cleared.get(entry_id)
        clearance = cleared.clearance if cleared is not None and cleared.distance < nearest.distance else None
        entry, _ = references[nearest.image.id]
        people.append(_Person(entry, within, grade, clearance))
    return people
