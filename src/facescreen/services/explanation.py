"""A verdict in words, for whoever has to act on it."""

import math

from facescreen.domain.screening import AppliedCalibration, Grade, Match, Policy, ScreenedFace, Verdict


def explain(face: ScreenedFace, policy: Policy) -> str:
    """Why the face has its verdict, in one or two sentences; names of people as they are on the list."""
    sentences = [_outcome(face, policy)]
    cleared = [match.name for match in face.matches if match.clearance is not None]
    if cleared:
        sentences.append(f"A reviewer said that a face like this one is not {' or '.join(dict.fromkeys(cleared))}.")
    return " ".join(sentences)


def _outcome(face: ScreenedFace, policy: Policy) -> str:
    match face.verdict:
        case Verdict.MATCH | Verdict.POSSIBLE:
            return _resemblance(face.alerts[0], policy)
        case Verdict.CLEAR:
            return f"Nobody{' else' if face.matches else ''} on the list is {_near_enough(policy)}."
        case Verdict.NOT_SCREENABLE:
            return f"This does not say that nobody matches: {'; '.join(reason.detail for reason in face.reasons)}."
        case Verdict.WITHDRAWN:
            return "Whoever this face matched was taken off the list since."


def _resemblance(match: Match, policy: Policy) -> str:
    limit = (
        f"within the match threshold of {match.threshold:.4f}"
        if match.grade is Grade.MATCH
        else f"within the review threshold of {match.review_threshold:.4f} but not the match threshold of "
        f"{match.threshold:.4f}"
    )
    distance = f"The distance to {match.name} is {match.distance:.4f} ({match.metric}, {match.model_name})"
    if match.score > match.distance:
        # Of three or more photos two count, and whoever resembles many people has to come nearer.
        distance += f", the score {match.score:.4f}, for other photos and other people on the list count too"
    parts = [f"{distance}: {limit}"]
    if match.false_alert_probability is not None and policy.calibration is not None:
        parts.append(
            f"{_share(match.false_alert_probability, policy.calibration)} of people who are not on such a list of "
            f"{policy.calibration.list_size} photos come so near to somebody on it"
        )
    if match.margin is not None:
        parts.append(f"the next person's score is {match.margin:.4f} larger")
    return "; ".join(parts) + "."


def _near_enough(policy: Policy) -> str:
    within = f"within the review threshold of {policy.review_threshold:.4f}"
    if math.isinf(policy.largest_distance):
        return within
    return f"{within} and the largest distance of {policy.largest_distance:.4f}"


def _share(probability: float, calibration: AppliedCalibration) -> str:
    return f"{probability:.2%} of faces" if probability else f"none of the {calibration.faces} measured faces"
