"""Reports what is wrong with a list: people twice, photos of somebody else, look-alikes, and what matches nobody."""

import asyncio
from collections import defaultdict
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from datetime import UTC, datetime
from itertools import chain

import numpy as np
from numpy.typing import NDArray

from facescreen.backends.base import EmbeddingBackend
from facescreen.db import blacklist, collections, list_report
from facescreen.db.connection import Database
from facescreen.db.list_report import StoredPhoto
from facescreen.domain.blacklist import DEFAULT_COLLECTION, Collection
from facescreen.domain.distances import EMBEDDING_METRICS, EmbeddingMetric, Metric, distances, from_cosine, unit
from facescreen.domain.faces import Vectors
from facescreen.domain.list_report import Finding, FindingCode, ListedPerson, ListReport, Weakness
from facescreen.domain.quality import ENROLLMENT_LIMITS
from facescreen.domain.screening import Policy
from facescreen.indexes.pairs import NearPair, PairSearch
from facescreen.pool import WorkPool
from facescreen.recognition.catalog import default_threshold
from facescreen.services.collections import CollectionService
from facescreen.services.matching import Matcher
from facescreen.services.reindex import Progress
from facescreen.services.sync import FolderSyncService
from facescreen.services.thresholds import Plan, ScreeningOptions

MAX_FINDINGS = 1000
"""Of each kind in a report, the most urgent."""

_REMEMBERED = 16
"""Reports that a process keeps, those that were made last."""

_CELLS_AT_ONCE = 2**20
"""Distances between photos of one entry that are computed in one piece of work."""


@dataclass(frozen=True, slots=True)
class _List:
    """A collection as it was at one version.

    Attributes:
        rows: for each embedding the index of its photo in ``photos``.
    """

    version: int
    people: Mapping[int, ListedPerson]
    photos: Sequence[StoredPhoto]
    rows: NDArray[np.int64]
    vectors: Vectors

    def owners(self) -> NDArray[np.int64]:
        """Whose each embedding is."""
        return np.array([photo.listed.entry_id for photo in self.photos], np.int64)[self.rows]

    def people_of(self, *photos: StoredPhoto) -> tuple[ListedPerson, ...]:
        return tuple(self.people[photo.listed.entry_id] for photo in photos)


@dataclass(frozen=True, slots=True)
class _Spread:
    """How far the photos of one entry, as indexes in ``photos``, are apart.

    Attributes:
        farthest: the two that are farthest apart.
        from_middle: of each photo from the one in the middle, that with the smallest sum of distances.
    """

    photos: NDArray[np.int64]
    farthest: tuple[int, int]
    distance: float
    from_middle: NDArray[np.float64]


_Totals = dict[FindingCode, int | None]


class ListReportService:
    """Looks at whole collections, in pieces of work for the pool and with nothing held in the database meanwhile.

    Args:
        backend: what made the embeddings, ``None`` where an outside service keeps the faces.
        folder: the blacklist folder, whose files the report on the default collection compares with the list.
    """

    def __init__(
        self,
        *,
        database: Database,
        collections: CollectionService,
        matcher: Matcher,
        backend: EmbeddingBackend | None,
        pool: WorkPool,
        folder: FolderSyncService,
    ) -> None:
        self._folder = folder
        self._database = database
        self._collections = collections
        self._matcher = matcher
        self._backend = backend
        self._pool = pool
        # Without names, so that whoever is taken off the list is not remembered here.
        self._reports: dict[int, ListReport] = {}
        # A report keeps a core busy: one at a time, and whoever asks for the same meanwhile gets the same.
        self._turn = asyncio.Lock()

    async def report(
        self, collection: str, *, limit: int = MAX_FINDINGS, progress: Progress = lambda _done, _total: None
    ) -> ListReport:
        """What is wrong with a collection, by the answering model and the configured metric and thresholds.

        Args:
            limit: how many findings of each kind it has, at most ``MAX_FINDINGS``; all are counted.

        Raises:
            CollectionNotFoundError: there is none of this name.
            ThresholdRequiredError: no match threshold is configured or measured.
        """
        found = await self._collections.get(collection)
        plan = await self._matcher.plan_for(found, ScreeningOptions())
        report = await self._remembered(found, plan)
        if report is None:
            async with self._turn:
                report = await self._remembered(found, plan)
                if report is None:
                    report = await self._make(found, plan, progress)
                    self._reports.pop(found.id, None)
                    self._reports[found.id] = report
                    while len(self._reports) > _REMEMBERED:
                        del self._reports[next(iter(self._reports))]
        left_out = await self._folder.not_listed() if found.name == DEFAULT_COLLECTION else ()
        findings = tuple(_first_of_each(report.findings, limit))
        return await self._named(replace(report, findings=findings, left_out=tuple(left_out)))

    async def _remembered(self, collection: Collection, plan: Plan) -> ListReport | None:
        """The last report, if nothing that it rests on has changed."""
        report = self._reports.get(collection.id)
        if report is None:
            return None
        policy = await self._matcher.policy(collection, plan)
        async with self._database.read() as connection:
            version = await blacklist.version(connection, collection.id)
            people = (await collections.size(connection, collection.id)).entries  # fewer once somebody has expired
        rests_on = (report.version, report.entries, report.model_name, report.policy)
        return report if rests_on == (version, people, plan.model_name, policy) else None

    async def _named(self, report: ListReport) -> ListReport:
        """The report with the names of its people and photos, without findings of those that are gone by now."""
        async with self._database.read() as connection:
            names = await list_report.names_of(connection, {p.id for found in report.findings for p in found.people})
            photos = await list_report.photos_of(connection, {p.id for found in report.findings for p in found.photos})
        return replace(
            report,
            findings=tuple(
                replace(
                    finding,
                    people=tuple(replace(person, name=names[person.id]) for person in finding.people),
                    photos=tuple(replace(photo, photo=photos[photo.id]) for photo in finding.photos),
                )
                for finding in report.findings
                if {p.id for p in finding.people} <= names.keys() and {p.id for p in finding.photos} <= photos.keys()
            ),
        )

    async def _make(self, collection: Collection, plan: Plan, progress: Progress) -> ListReport:
        policy = await self._matcher.policy(collection, plan)
        listed = await self._read(collection, plan)
        totals: _Totals = dict.fromkeys(FindingCode)
        pairs: list[Finding] = []
        spreads: list[_Spread] = []
        together = None
        if self._backend is not None and plan.metric in EMBEDDING_METRICS:
            pairs = await self._pairs(listed, policy, metric=plan.metric, totals=totals, progress=progress)
            together = default_threshold(plan.model, plan.metric)
            if together is not None:
                for piece in await self._pool.run(_pieces, listed):
                    spreads += await self._pool.run(_wide_spreads, listed, piece, metric=plan.metric, together=together)
        rest = await self._pool.run(
            _by_photos, listed, spreads, together=together, is_embedded=self._backend is not None, totals=totals
        )
        order = list(FindingCode)
        return ListReport(
            collection=collection.name,
            version=listed.version,
            made_at=datetime.now(UTC),
            model_name=plan.model_name,
            metric=plan.metric,
            policy=policy,
            one_to_one_threshold=together,
            entries=len(listed.people),
            photos=len(listed.photos),
            not_measured=sum(photo.quality is None for photo in listed.photos),
            totals=totals,
            findings=tuple(map(_nameless, sorted(chain(pairs, rest), key=lambda finding: order.index(finding.code)))),
        )

    async def _read(self, collection: Collection, plan: Plan) -> _List:
        async with self._database.read() as connection:
            version = await blacklist.version(connection, collection.id)
            people = await list_report.active_people(connection, collection.id)
            photos = await list_report.active_photos(connection, collection.id)
            ids: list[int] = []
            vectors = np.empty((0, 0), np.float32)
            if self._backend is not None:
                space = self._backend.space(plan.model)
                ids, vectors = await blacklist.vectors(connection, collection.id, space)
        places = {photo.listed.id: index for index, photo in enumerate(photos)}
        kept = [row for row, id_ in enumerate(ids) if id_ in places]
        rows = np.array([places[ids[row]] for row in kept], np.int64)
        return _List(version, people, photos, rows, vectors[kept])

    async def _pairs(
        self, listed: _List, policy: Policy, *, metric: EmbeddingMetric, totals: _Totals, progress: Progress
    ) -> list[Finding]:
        """Entries that are near each other."""
        radii = (policy.threshold, policy.review_threshold)
        search = await self._pool.run(
            PairSearch, listed.vectors, listed.owners(), metric=metric, radii=radii, limit=MAX_FINDINGS
        )
        for step in range(search.steps):
            progress(step, search.steps)
            await self._pool.run(search.step, step)
        progress(search.steps, search.steps)
        findings = []
        codes = (FindingCode.DUPLICATE_ENTRIES, FindingCode.LOOK_ALIKES)
        for code, limit, near in zip(codes, radii, await self._pool.run(search.result), strict=True):
            totals[code] = near.total
            findings += [_alike(listed, pair, code=code, limit=limit) for pair in near.nearest]
        return findings


def _nameless(finding: Finding) -> Finding:
    return replace(
        finding,
        people=tuple(replace(person, name="") for person in finding.people),
        photos=tuple(replace(photo, photo="") for photo in finding.photos),
    )


def _alike(listed: _List, pair: NearPair, *, code: FindingCode, limit: float) -> Finding:
    photos = [listed.photos[listed.rows[row]] for row in (pair.first, pair.second)]
    return Finding(code, listed.people_of(*photos), tuple(p.listed for p in photos), pair.distance, limit)


def _by_photos(
    listed: _List, spreads: Sequence[_Spread], *, together: float | None, is_embedded: bool, totals: _Totals
) -> list[Finding]:
    """What the photos of each entry by themselves say.

    Args:
        spreads: of the entries whose photos are too far apart.
        together: the largest distance of photos of one person, ``None`` where it cannot be told.
    """
    usable = set(listed.rows.tolist()) if is_embedded else set(range(len(listed.photos)))
    seen = {listed.photos[index].listed.entry_id for index in usable}
    empty = [Finding(FindingCode.ENTRY_WITHOUT_PHOTOS, (p,)) for p in listed.people.values() if p.id not in seen]
    disagreeing: list[Finding] = []
    outliers: dict[int, float] = {}
    if together is not None:
        spreads = sorted(spreads, key=lambda spread: -spread.distance)
        disagreeing = [_disagreement(listed, spread, together) for spread in spreads]
        for spread in spreads:
            if len(spread.photos) > 2:  # of two nobody can say which is wrong
                pairs = zip(spread.photos.tolist(), spread.from_middle.tolist(), strict=True)
                outliers.update((photo, distance) for photo, distance in pairs if distance > together)
    weak = []
    for index, photo in enumerate(listed.photos):
        weaknesses = (
            *([Weakness.NOT_EMBEDDED] if index not in usable else []),
            *([Weakness.OUTLIER] if index in outliers else []),
            *([Weakness.OVERRIDDEN] if photo.quality_override is not None else []),
        )
        reasons = ENROLLMENT_LIMITS.reasons(photo.quality) if photo.quality is not None else ()
        if weaknesses or reasons:
            weak.append(
                Finding(
                    FindingCode.WEAK_PHOTO,
                    listed.people_of(photo),
                    (photo.listed,),
                    outliers.get(index),
                    together if index in outliers else None,
                    weaknesses=weaknesses,
                    reasons=reasons,
                )
            )
    kinds = list(Weakness)
    weak.sort(key=lambda f: (min(map(kinds.index, f.weaknesses), default=len(kinds)), -len(f.reasons)))
    totals[FindingCode.ENTRY_WITHOUT_PHOTOS] = len(empty)
    totals[FindingCode.PHOTOS_DISAGREE] = len(disagreeing) if together is not None else None
    totals[FindingCode.WEAK_PHOTO] = len(weak)
    return [*empty[:MAX_FINDINGS], *disagreeing[:MAX_FINDINGS], *weak[:MAX_FINDINGS]]


def _disagreement(listed: _List, spread: _Spread, together: float) -> Finding:
    first, second = (listed.photos[index] for index in spread.farthest)
    odd = None
    if len(spread.photos) > 2:
        odd = listed.photos[spread.photos[spread.from_middle.argmax()]].listed.id
    return Finding(
        FindingCode.PHOTOS_DISAGREE,
        listed.people_of(first),
        (first.listed, second.listed),
        spread.distance,
        together,
        odd_one_out=odd,
    )


def _pieces(listed: _List) -> list[NDArray[np.int64]]:
    """Rows of entries with several photos, as (entries, photos) with equally many photos in each."""
    owners = listed.owners()
    order = np.argsort(owners, kind="stable")
    groups = np.split(order, np.flatnonzero(np.diff(owners[order])) + 1)
    by_count: defaultdict[int, list[NDArray[np.int64]]] = defaultdict(list)
    for rows in groups:
        by_count[len(rows)].append(rows)
    pieces = []
    for count in by_count.keys() - {0, 1}:
        size = max(1, _CELLS_AT_ONCE // (count * max(count, listed.vectors.shape[1])))
        pieces += [np.stack(by_count[count][at : at + size]) for at in range(0, len(by_count[count]), size)]
    return pieces


def _wide_spreads(
    listed: _List, piece: NDArray[np.int64], *, metric: EmbeddingMetric, together: float
) -> list[_Spread]:
    """Those entries of the piece whose photos are too far apart."""
    spreads = []
    for rows in piece[_largest_distances(metric, listed.vectors[piece]) > together - _ROUNDING]:
        table = np.stack([distances(metric, vector, listed.vectors[rows]) for vector in listed.vectors[rows]])
        np.fill_diagonal(table, 0.0)  # where an embedding has no direction, it is not
        first, second = sorted(divmod(int(table.argmax()), len(rows)))
        if table[first, second] > together:
            photos = listed.rows[rows]
            farthest = (int(photos[first]), int(photos[second]))
            spreads.append(_Spread(photos, farthest, float(table[first, second]), table[table.sum(axis=1).argmin()]))
    return spreads


_ROUNDING = 1e-6
"""Products of float64 vectors are nearer than this to ``domain.distances``."""


def _largest_distances(metric: EmbeddingMetric, vectors: Vectors) -> NDArray[np.float64]:
    """The largest distance among the photos of each entry (n,), of embeddings (n, photos, dimension)."""
    if metric.is_angle_based:
        directions = unit(vectors)
        cosine = 1.0 - (directions @ directions.transpose(0, 2, 1)).min(axis=(1, 2))
        return from_cosine(metric, np.clip(cosine, 0.0, Metric.COSINE.maximum))
    differences = vectors.astype(np.float64) - vectors[:, :1]
    products = differences @ differences.transpose(0, 2, 1)
    squares = np.diagonal(products, axis1=1, axis2=2)
    squared = squares[:, :, None] + squares[:, None, :] - 2.0 * products
    largest: NDArray[np.float64] = np.sqrt(np.maximum(squared.max(axis=(1, 2)), 0.0))
    return largest


def _first_of_each(findings: Sequence[Finding], limit: int) -> Iterator[Finding]:
    taken: defaultdict[FindingCode, int] = defaultdict(int)
    for finding in findings:
        taken[finding.code] += 1
        if taken[finding.code] <= limit:
            yield finding
