"""What the embeddings of one detector and one model say about photos of known people."""

import hashlib
from collections import Counter, defaultdict
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from statistics import median
from typing import TypeAlias

import numpy as np
from numpy.typing import NDArray

from facescreen.backends.base import EmbeddingSpace
from facescreen.config import DetectorName, ModelName
from facescreen.domain.biometrics import (
    AllPairs,
    Comparisons,
    Flags,
    accuracy,
    all_pairs,
    logistic_fit,
    rate,
)
from facescreen.domain.distances import EmbeddingMetric, distances
from facescreen.domain.evaluation import (
    Acquisition,
    Combination,
    FailedPhoto,
    GroupMeasures,
    HardExamples,
    HardPair,
    Identification,
    IdentificationPoint,
    Strangers,
    Timing,
    Verification,
)
from facescreen.domain.identification import OpenSet, Outcomes, Probes
from facescreen.errors import EvaluationDataError, InputError, NoFaceError
from facescreen.services.dataset import Dataset
from facescreen.services.embedding_cache import EmbeddedPhoto

Acquired: TypeAlias = EmbeddedPhoto | InputError
"""What became of a photo; the error is why it could not be decoded."""

Positions: TypeAlias = NDArray[np.int64]
"""Of photos, among all."""


class Measures:
    """Computes them.

    Args:
        acquired: in the order of the photos.
        shipped: the threshold that comes with the model.

    Raises:
        EvaluationDataError: the photos of no two people show a face.
    """

    def __init__(
        self,
        dataset: Dataset,
        acquired: Sequence[Acquired],
        metric: EmbeddingMetric,
        *,
        shipped: float | None,
    ) -> None:
        self._dataset = dataset
        self._acquired = acquired
        self._metric = metric
        self._shipped = shipped
        self._people = np.asarray(dataset.people)
        self._photos = defaultdict[str, list[int]](list)
        for position, person in enumerate(dataset.people):
            self._photos[person].append(position)
        faces = [photo.face if isinstance(photo, EmbeddedPhoto) else None for photo in acquired]
        self._found = np.array([face is not None for face in faces])
        if len(set(self._people[self._found])) < 2:
            raise EvaluationDataError("the photos of no two people show a face")
        # What is computed with the rows of photos without a face is left out by `_found`.
        self._vectors = np.zeros((len(faces), max(len(face.vector) for face in faces if face is not None)), np.float32)
        self._vectors[self._found] = [face.vector for face in faces if face is not None]

    def combination(self, detector: DetectorName, model: ModelName, *, space: EmbeddingSpace) -> Combination:
        """All of them."""
        everybody = np.ones_like(self._found)
        pairs = self._pairs(everybody)
        verification = self._comparisons(everybody, pairs).verification(shipped=self._shipped)
        arranged = self._several_photos_listed()
        identification, outcomes = self._identification(arranged)
        everybody_listed, _ = self._identification(self._everybody_listed())

        def among(members: Flags) -> list[IdentificationPoint]:
            found = outcomes.among(members[arranged.mated], members[arranged.strangers])
            points = identification.whole.points
            return [found.at(point.threshold, target=point.target) for point in points]

        return Combination(
            detector,
            model,
            space,
            shipped_threshold=self._shipped,
            acquisition=self._acquisition(),
            timing=self._timing(),
            listed_pairs=self._listed_pairs() if self._dataset.pairs else None,
            all_pairs=verification,
            identification=identification,
            everybody_listed=everybody_listed,
            groups=tuple(
                self._group(group, verification, among) for group in sorted(set(self._dataset.groups.values()))
            ),
            hard=self._hard(pairs),
        )

    def _acquisition(self) -> Acquisition:
        failed = tuple(
            FailedPhoto(name, photo.code if isinstance(photo, InputError) else NoFaceError.code)
            for name, photo, is_found in zip(self._dataset.photos, self._acquired, self._found, strict=True)
            if not is_found
        )
        unreadable = sum(isinstance(photo, InputError) for photo in self._acquired)
        photos = len(self._acquired)
        return Acquisition(
            failed, unreadable=rate(unreadable, photos), without_face=rate(len(failed) - unreadable, photos)
        )

    def _timing(self) -> Timing:
        decoded = [photo for photo in self._acquired if isinstance(photo, EmbeddedPhoto)]
        faces = [photo.face for photo in decoded if photo.face is not None]
        return Timing(
            detect=median(photo.detect_ms for photo in decoded), embed=median(face.embed_ms for face in faces)
        )

    def _listed_pairs(self) -> Verification:
        pairs = self._dataset.pairs
        values = np.array([self._distance(pair.first, pair.second) for pair in pairs])
        same = np.array([pair.same for pair in pairs])
        found = ~np.isnan(values)
        if not (found & same).any() or not (found & ~same).any():
            raise EvaluationDataError("no listed pair of one person, or none of two, shows two faces")
        return Comparisons.of(values, same).verification(
            shipped=self._shipped,
            accuracy=accuracy(values, same, np.array([pair.fold for pair in pairs]), shipped=self._shipped),
            logistic=logistic_fit(values[found], same[found]),
        )

    def _distance(self, first: int, second: int) -> float:
        """How far two photos are apart, NaN if one of them shows no face."""
        if not (self._found[first] and self._found[second]):
            return np.nan
        return float(distances(self._metric, self._vectors[first], self._vectors[second, None])[0])

    def _pairs(self, among: Flags) -> AllPairs:
        """Every two of these photos that show a face."""
        chosen = among & self._found
        return all_pairs(self._metric, self._vectors[chosen], self._people[chosen])

    def _comparisons(self, among: Flags, pairs: AllPairs) -> Comparisons:
        """The same with the pairs that have no distance."""
        photos = int(among.sum())
        mated = sum(count * (count - 1) // 2 for count in Counter(self._people[among]).values())
        return Comparisons(
            pairs.mated,
            pairs.others,
            mated_missing=mated - len(pairs.mated),
            others_missing=photos * (photos - 1) // 2 - mated - len(pairs.others),
        )

    def _hard(self, pairs: AllPairs) -> HardExamples:
        names = np.asarray(self._dataset.photos)[self._found]

        def named(hardest: Sequence[tuple[int, int, float]]) -> tuple[HardPair, ...]:
            return tuple(HardPair(str(names[one]), str(names[other]), distance) for one, other, distance in hardest)

        return HardExamples(lookalikes=named(pairs.nearest_others), strangers_to_themselves=named(pairs.farthest_mated))

    def _several_photos_listed(self) -> "_Arrangement":
        strangers = {person for person, positions in self._photos.items() if len(positions) == 1}
        kind = Strangers.SINGLE if strangers else Strangers.HELD_OUT
        strangers = strangers or _third(self._photos)
        listed = [positions for person, positions in self._photos.items() if person not in strangers]
        return self._arrangement(listed, [at for person in sorted(strangers) for at in self._photos[person]], kind)

    def _everybody_listed(self) -> "_Arrangement":
        return self._arrangement(list(self._photos.values()), range(len(self._people)), Strangers.IN_TURN)

    def _arrangement(
        self, listed: Sequence[Sequence[int]], strangers: Iterable[int], kind: Strangers
    ) -> "_Arrangement":
        references = np.array([at for at, *_ in listed if self._found[at]], np.int64)
        mated = np.array([at for _, *others in listed for at in others], np.int64)
        unknown = np.array([at for at in strangers if self._found[at]], np.int64)
        places = {self._people[at]: place for place, at in enumerate(references)}

        def probes(positions: Positions) -> Probes:
            own = [places.get(self._people[at], -1) if self._found[at] else -1 for at in positions]
            return Probes(self._vectors[positions], np.array(own, np.int64))

        searches = OpenSet(self._metric, self._vectors[references], probes(mated), probes(unknown))
        return _Arrangement(len(listed), kind, mated, unknown, searches)

    def _identification(self, arranged: "_Arrangement") -> tuple[Identification, Outcomes]:
        """And the searches in the whole list."""
        whole = arranged.searches.whole()
        parts = () if arranged.kind is Strangers.IN_TURN else arranged.searches.parts()
        identification = Identification(
            people=arranged.people,
            mated_probes=len(arranged.mated),
            strangers=arranged.kind,
            stranger_probes=len(arranged.strangers),
            sizes=(*(part.measure() for part in parts), whole.measure()),
            curve=whole.curve(),
            shipped=None if self._shipped is None else whole.at(self._shipped),
        )
        return identification, whole

    def _group(
        self, group: str, verification: Verification, among: Callable[[Flags], Sequence[IdentificationPoint]]
    ) -> GroupMeasures:
        """At the thresholds of everybody.

        Args:
            among: what searches for some of the photos come to.
        """
        members = np.array([self._dataset.groups.get(person) == group for person in self._dataset.people])
        pairs = self._comparisons(members, self._pairs(members))
        return GroupMeasures(
            group,
            people=len(set(self._people[members])),
            photos=int(members.sum()),
            failed=rate(int((members & ~self._found).sum()), int(members.sum())),
            verification=tuple(pairs.at(point.threshold, target=point.target) for point in verification.points),
            identification=tuple(among(members)),
        )


@dataclass(frozen=True, slots=True)
class _Arrangement:
    """Who is on a list, and whose faces are searched in it.

    Attributes:
        people: how many are on the list.
        mated, strangers: the photos that are searched.
    """

    people: int
    kind: Strangers
    mated: Positions
    strangers: Positions
    searches: OpenSet


def _third(people: Iterable[str]) -> set[str]:
    """A third of the people, at least one, whoever else there is: those with the smallest hashes of their names."""
    ranked = sorted(people, key=lambda person: hashlib.sha256(person.encode()).digest())
    return set(ranked[: max(len(ranked) // 3, 1)])
