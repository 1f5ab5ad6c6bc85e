"""Candidates and a policy make a verdict. Pure: the same input gives the same answer, always."""

from collections.abc import Callable, Mapping, Sequence

from facescreen.domain.blacklist import Entry, ReferenceImage
from facescreen.domain.faces import Candidate
from facescreen.domain.screening import Match, Policy, Verdict


def decide(
    candidates: Sequence[Candidate] | None,
    *,
    references: Mapping[int, tuple[Entry, ReferenceImage]],
    policy: Policy,
    model_name: str,
    confidence: Callable[[float], float | None],
) -> tuple[Verdict, tuple[Match, ...]]:
    """The verdict on one face and the matches that it rests on, nearest first.

    Args:
        candidates: reference images near the face, in any order; ``None`` if it could not be compared.
        references: what is known of them; a candidate that is not here was withdrawn and matches nobody.
        policy: a candidate matches if its distance is at most the threshold. One match per person, by the nearest
            reference, unless all references are asked for.
        model_name: the model that the distances come from.
        confidence: calibrated percentage for a distance, or ``None``.
    """
    if candidates is None:
        return Verdict.NOT_SCREENABLE, ()
    matches: list[Match] = []
    people: set[int] = set()
    for candidate in sorted(candidates, key=lambda candidate: (candidate.distance, candidate.reference_image_id)):
        if candidate.distance > policy.threshold or candidate.reference_image_id not in references:
            continue
        entry, image = references[candidate.reference_image_id]
        if entry.id in people and not policy.all_references:
            continue
        people.add(entry.id)
        matches.append(
            Match(
                entry_id=entry.id,
                name=entry.name,
                reason=entry.reason,
                reference_image_id=image.id,
                identity=image.photo,
                target=image.face.box,
                distance=candidate.distance,
                threshold=policy.threshold,
                confidence=confidence(candidate.distance),
                model_name=model_name,
                metric=policy.metric,
            )
        )
    return (Verdict.MATCH if matches else Verdict.CLEAR), tuple(matches)
