"""A verdict in words, for whoever has to act on it."""

from facescreen.domain.screening import AppliedCalibration, Grade, Match, Policy, ScreenedFace, Verdict


def explain(face: ScreenedFace, policy: Policy) -> str:
    """Why the face has its verdict, in one or two sentences; names of people as they are on the list."""
    sentences = [_outcome(face, policy)]
    if face.face.turn:
        sentences.append(f"The head is turned by {90 * face.face.turn} degrees in the picture and was seen upright.")
    cleared = [match.name for match in face.matches if match.clearance is not None]
    if cleared:
        sentences.append(f"A reviewer said that a face like this one is not {' or '.join(dict.fromkeys(cleared))}.")
    return " ".join(sentences)


def _outcome(face: ScreenedFace, policy: Policy) -> str:
    match face.verdict:
        case Verdict.MATCH | Verdict.POSSIBLE:
            return _resemblance(face.alerts[0], policy)
        case Verdict.CLEAR:
            nobody = "Nobody else" if face.matches else "Nobody"
            return f"{nobody} on the list is within the review threshold of {policy.review_threshold:.4f}."
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
    parts = [f"The distance to {match.name} is {match.distance:.4f} ({match.metric}, {match.model_name}): {limit}"]
    if match.false_alert_probability is not None and policy.calibration is not None:
        parts.append(
            f"{_share(match.false_alert_probability, policy.calibration)} of people who are not on such a list of "
            f"{policy.calibration.list_size} photos come so near to somebody on it"
        )
    if match.margin is not None:
        parts.append(f"the next person is {match.margin:.4f} farther")
    return "; ".join(parts) + "."


def _share(probability: float, calibration: AppliedCalibration) -> str:
    return f"{probability:.2%} of faces" if probability else f"none of the {calibration.faces} measured faces"
