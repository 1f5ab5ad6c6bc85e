"""What a request chooses, and the thresholds that follow: set by hand, or chosen by a budget of false alerts. Pure."""

from collections.abc import Iterable
from dataclasses import dataclass, replace

from facescreen.config import DetectorName, ModelName
from facescreen.domain.distances import EmbeddingMetric, Metric, convert
from facescreen.domain.false_alerts import AlertBudget, Calibration, FalseAlertCurve
from facescreen.domain.screening import AppliedCalibration, Policy
from facescreen.errors import InvalidThresholdError, ThresholdRequiredError
from facescreen.recognition.catalog import MODELS, default_threshold, shipped_false_alerts

SIMILARITY_THRESHOLD = 0.2
"""Distance of similarity 80: the default of ``FaceMatchThreshold`` in Rekognition's SearchFacesByImage."""


@dataclass(frozen=True, slots=True)
class ScreeningOptions:
    """What one request chooses; ``None`` is the configured default."""

    detector: DetectorName | None = None
    model: ModelName | None = None
    metric: EmbeddingMetric | None = None
    threshold: float | None = None
    review_threshold: float | None = None
    all_references: bool = False


@dataclass(frozen=True, slots=True)
class ScreeningDefaults:
    """What holds where a request chooses nothing; both thresholds belong to ``model`` and ``metric``.

    Attributes:
        budget: chooses the thresholds that nobody set, from what was measured for the model.
    """

    detector: DetectorName
    model: ModelName
    metric: EmbeddingMetric
    threshold: float | None
    review_threshold: float | None
    budget: AlertBudget


@dataclass(frozen=True, slots=True)
class Plan:
    """How one request is answered.

    Attributes:
        detector, model: what the backend is asked for.
        detector_name, model_name: what the result names.
        metric: what distances are in.
        threshold, review_threshold: what was asked for or configured, ``None`` where the budget of false alerts
            chooses.
    """

    detector: DetectorName
    model: ModelName
    detector_name: str
    model_name: str
    metric: Metric
    threshold: float | None
    review_threshold: float | None
    all_references: bool


def shipped_calibration(model: ModelName, budget: AlertBudget) -> Calibration | None:
    """What comes with the model, for this budget; ``None`` where nobody measured it."""
    shipped = shipped_false_alerts(model)
    if shipped is None:
        return None
    return Calibration(None, shipped.source, shipped.detector, shipped.space, budget, shipped.curves, None)


def asked_thresholds(options: ScreeningOptions, defaults: ScreeningDefaults) -> tuple[float | None, float | None]:
    """The match and the review threshold that a request or the configuration sets, where embeddings are compared.

    A configured threshold belongs to the configured model and metric and is converted for metrics of the same geometry.

    Raises:
        InvalidThresholdError: one is outside of the metric's range, or the request's are in the wrong order.
    """
    model, metric = options.model or defaults.model, options.metric or defaults.metric
    same_geometry = metric is defaults.metric or (metric.is_angle_based and defaults.metric.is_angle_based)
    is_configured = model == defaults.model and same_geometry

    def configured(threshold: float | None) -> float | None:
        return None if threshold is None or not is_configured else convert(threshold, defaults.metric, metric)

    asked = (
        _first(options.threshold, configured(defaults.threshold)),
        _first(options.review_threshold, configured(defaults.review_threshold)),
    )
    _check(options, asked, metric)
    return asked


def similarity_thresholds(options: ScreeningOptions, defaults: ScreeningDefaults) -> tuple[float | None, float | None]:
    """The same where an outside service tells how similar two faces are, and nobody measured false alerts."""
    threshold = _first(options.threshold, defaults.threshold, SIMILARITY_THRESHOLD)
    asked = (threshold, _first(options.review_threshold, defaults.review_threshold, threshold))
    _check(options, asked, Metric.SIMILARITY)
    return asked


def deciding_curve(plan: Plan, calibration: Calibration | None) -> FalseAlertCurve | None:
    """False alerts by distance, ``None`` where nobody measured them, as by the similarity of an outside service."""
    if calibration is None or plan.metric is Metric.SIMILARITY:
        return None
    return calibration.curve(plan.metric)


def resolve_policy(plan: Plan, calibration: Calibration | None, list_size: int) -> Policy:
    """How candidates of a list of this many reference photos become matches.

    What nobody asked for or configured is chosen by the calibration's budget of false alerts. However few people are on
    the list, nobody counts who is farther than two photos of one person are. The review threshold is never below the
    match threshold.

    Raises:
        ThresholdRequiredError: there is no match threshold and no evidence to choose one by.
    """
    curve = deciding_curve(plan, calibration)
    if calibration is None or curve is None:
        if plan.threshold is None:
            raise ThresholdRequiredError(
                f"false alerts were never measured for {plan.model_name} with {plan.metric}; "
                "give a `threshold`, or run: facescreen calibrate"
            )
        return _policy(plan, plan.threshold, plan.review_threshold)
    largest = default_threshold(plan.model, plan.metric)
    one_in, review_one_in = calibration.budget.one_in, calibration.budget.review_one_in
    threshold = _first(plan.threshold, _least(curve.threshold(one_in, list_size), largest))
    if threshold is None:
        raise ThresholdRequiredError(
            f"no threshold keeps to one false alert in {one_in} by the {curve.faces} faces that were measured for "
            f"{plan.model_name}; give a `threshold`, choose another budget, or run: facescreen calibrate"
        )
    policy = _policy(
        plan, threshold, _first(plan.review_threshold, _least(curve.threshold(review_one_in, list_size), largest))
    )
    applied = AppliedCalibration(
        id=calibration.id,
        source=calibration.source,
        faces=curve.faces,
        list_size=list_size,
        false_alert_rate=curve.rate(policy.threshold, list_size),
        review_false_alert_rate=curve.rate(policy.review_threshold, list_size),
    )
    return replace(policy, calibration=applied)


def wide_thresholds(model_name: str, policy: Policy) -> list[str]:
    """Say of each threshold that is larger than the distance of two photos of one person what it does.

    A budget of false alerts chooses no such threshold. Who gives one usually means a similarity, and gets matches of
    everybody.
    """
    if policy.metric is Metric.SIMILARITY:
        largest: float | None = SIMILARITY_THRESHOLD
    else:
        largest = next((default_threshold(name, policy.metric) for name in MODELS if name == model_name), None)
    if largest is None:
        return []
    known = policy.calibration
    chosen = [("threshold", policy.threshold, "match", known.false_alert_rate if known else None)]
    if policy.review_threshold > policy.threshold:
        rate = known.review_false_alert_rate if known else None
        chosen.append(("review_threshold", policy.review_threshold, "match or be possible", rate))
    return [
        f"`{name}` {value:g} is a distance, and larger than {largest:.4g}, up to which two photos are taken for one "
        f"person ({policy.metric}, {model_name}), so people who are not on the list will {effect}"
        + ("" if rate is None else f": {rate:.0%} of them, by what was measured")
        for name, value, effect, rate in chosen
        if value > largest
    ]


def _policy(plan: Plan, threshold: float, review_threshold: float | None) -> Policy:
    review_threshold = threshold if review_threshold is None else max(threshold, review_threshold)
    return Policy(plan.metric, threshold, review_threshold, all_references=plan.all_references)


def _first(*values: float | None) -> float | None:
    return next((value for value in values if value is not None), None)


def _least(value: float | None, largest: float | None) -> float | None:
    return value if value is None or largest is None else min(value, largest)


def _check(options: ScreeningOptions, thresholds: Iterable[float | None], metric: Metric) -> None:
    for threshold in thresholds:
        if threshold is not None and not 0 <= threshold <= metric.maximum:
            raise InvalidThresholdError(f"a threshold must be between 0 and {metric.maximum} for metric {metric}")
    match options:
        case ScreeningOptions(threshold=float() as near, review_threshold=float() as wide) if wide < near:
            raise InvalidThresholdError("the review threshold must not be below the threshold")
