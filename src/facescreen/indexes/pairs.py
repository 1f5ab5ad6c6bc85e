"""People who look alike: every two owners of embeddings that come near to each other, exact and without an index."""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from functools import cached_property

import numpy as np
from numpy.typing import NDArray

from facescreen.domain.distances import EmbeddingMetric, Metric, convert, distances, unit
from facescreen.domain.faces import Vectors

_Floats = NDArray[np.float64]
_Rows = NDArray[np.int64]

_TILE_ROWS = 1024
_TILE_CELLS = 2**24
"""Of one matrix product: 64 MB, so large that its threads seldom wait for each other."""
_VARIANCE = 0.9
"""Share of the variance that the leading directions hold, which tell most pairs apart."""
_DENSE = 1 / 64
"""Share of a tile's pairs from which the whole product costs less than looking at them one by one."""
_GATHERED = 2**14
"""Rows that are copied at a time."""
_PAIRS_AT_ONCE = 2**20


@dataclass(frozen=True, slots=True)
class NearPair:
    """Two embeddings of two owners, as rows of what was searched; ``first`` is of the smaller owner."""

    first: int
    second: int
    distance: float


@dataclass(frozen=True, slots=True)
class NearPairs:
    """How many pairs of owners there are in a band of distances, and the nearest of them by their nearest rows."""

    total: int
    nearest: tuple[NearPair, ...]


@dataclass(frozen=True, slots=True)
class _Found:
    """Pairs of rows, their squared distance in the search's own scale, and the band that each is in."""

    first: _Rows
    second: _Rows
    gap: _Floats
    band: NDArray[np.intp]

    def __getitem__(self, chosen: NDArray[np.intp] | NDArray[np.bool_]) -> "_Found":
        return _Found(self.first[chosen], self.second[chosen], self.gap[chosen], self.band[chosen])

    def __add__(self, other: "_Found") -> "_Found":
        return _Found(
            np.concatenate((self.first, other.first)),
            np.concatenate((self.second, other.second)),
            np.concatenate((self.gap, other.gap)),
            np.concatenate((self.band, other.band)),
        )


class PairSearch:
    """All pairs of owners whose nearest embeddings are within a radius, step by step.

    Embeddings are turned into their principal directions. To leave directions out never makes a distance larger, so
    what is beyond the radius by the leading ones is beyond it, and one small matrix product rules out nearly all pairs.
    The others are compared by all directions, and those that float32 cannot place by ``domain.distances`` in float64.
    Memory does not grow with the number of pairs.

    Each step is one piece of work for a thread; steps of one search do not run at the same time.

    Args:
        vectors: raw embeddings (n, dimension).
        owners: whose each row is (n,); rows of one owner are not paired.
        radii: ascending; the first band holds what is at most the first radius apart, and so on.
        limit: how many pairs of each band are kept.
    """

    def __init__(
        self, vectors: Vectors, owners: _Rows, *, metric: EmbeddingMetric, radii: Sequence[float], limit: int
    ) -> None:
        order = np.argsort(owners, kind="stable")
        self._rows = order.astype(np.int64)
        self._vectors = vectors
        self._metric: EmbeddingMetric = metric
        self._radii = tuple(radii)
        self._limit = limit
        _, self._people = np.unique(owners[order], return_inverse=True)
        # The first row of each owner, and the end.
        self._starts = np.flatnonzero(np.diff(self._people, prepend=-1, append=len(self._people)))
        self._is_one_each = len(self._starts) == len(order) + 1
        self._tiles = list(self._tiled(0, len(order), _TILE_ROWS))
        self._totals = np.zeros(len(self._radii), np.int64)
        empty = np.empty(0, np.int64)
        self._kept = _Found(empty, empty, np.empty(0), np.empty(0, np.intp))

    @property
    def steps(self) -> int:
        """How many calls of :meth:`step` it takes."""
        return len(self._tiles)

    def step(self, number: int) -> None:
        """Compare one part of the rows, about a thousand, with itself and with all that come after it."""
        start, stop = self._tiles[number]
        widest = float(self._edges[-1]) + self._space.slack
        for columns in self._tiled(start, len(self._people), max(1, _TILE_CELLS // (stop - start))):
            tile = self._space.compare(slice(start, stop), slice(*columns), widest, scratch=self._scratch)
            parts = 1 + tile.count // _PAIRS_AT_ONCE
            for part in self._tiled(start, stop, max(1, (stop - start) // parts)):
                found = self._nearest_per_pair(self._placed(*tile.pairs(*part)))
                self._totals += np.bincount(found.band, minlength=len(self._radii))
                self._keep(found)

    def result(self) -> tuple[NearPairs, ...]:
        """The pairs in each band, nearest first, after all steps.

        Where more than ``limit`` pairs are there, those are kept that are nearest by float32.
        """
        bands = []
        for band, total in enumerate(self._totals.tolist()):
            kept = self._kept[self._kept.band == band]
            rows = zip(self._rows[kept.first].tolist(), self._rows[kept.second].tolist(), strict=True)
            near = zip(rows, self._exact(kept.first, kept.second).tolist(), strict=True)
            pairs = (NearPair(first, second, distance) for (first, second), distance in near)
            bands.append(NearPairs(total, tuple(sorted(pairs, key=lambda p: (p.distance, p.first, p.second)))))
        return tuple(bands)

    @cached_property
    def _space(self) -> "_Space":
        # Made by the first step, which is in a thread.
        vectors = unit(self._vectors) if self._metric.is_angle_based else self._vectors.astype(np.float64)
        return _Space.of(vectors[self._rows])

    @cached_property
    def _scratch(self) -> "_Scratch":
        return _Scratch()

    @cached_property
    def _edges(self) -> _Floats:
        """The radii as squared distances in the space."""
        if self._metric.is_angle_based:
            # The squared difference of unit vectors is twice their cosine distance.
            squared = [2.0 * convert(radius, self._metric, Metric.COSINE) for radius in self._radii]
        else:
            squared = [radius**2 for radius in self._radii]
        # Nothing is farther than twice the largest length, which is 1 there.
        return np.minimum(np.array(squared) / self._space.scale**2, 8.0)

    def _tiled(self, start: int, end: int, size: int) -> Iterator[tuple[int, int]]:
        """Parts of about this size that keep the rows of an owner together."""
        while start < end:
            whole = int(np.searchsorted(self._starts, start + size, side="right")) - 1
            next_owner = int(np.searchsorted(self._starts, start, side="right"))
            stop = int(self._starts[max(whole, next_owner)])
            yield start, stop
            start = stop

    def _placed(self, first: _Rows, second: _Rows, gap: _Floats) -> _Found:
        """Each pair of two owners once, in the band that it belongs to."""
        ahead = self._people[first] < self._people[second]
        first, second, gap = first[ahead], second[ahead], gap[ahead]
        band = np.searchsorted(self._edges, gap)
        unsure = (np.abs(gap[:, None] - self._edges) <= self._space.slack).any(axis=1)
        if self._metric.is_angle_based:
            lost = self._space.is_zero[first] | self._space.is_zero[second]
            gap[lost] = 2.0 / self._space.scale**2  # of cosine 1, as domain.distances has it
            unsure |= lost
        if unsure.any():
            band[unsure] = np.searchsorted(self._radii, self._exact(first[unsure], second[unsure]))
        return _Found(first, second, gap, band)[band < len(self._radii)]

    def _nearest_per_pair(self, found: _Found) -> _Found:
        """Of the rows of two owners the nearest: all of them are in one tile."""
        if self._is_one_each or not len(found.gap):
            return found
        owners = self._people[found.first] * len(self._people) + self._people[found.second]
        order = np.lexsort((found.gap, found.band, owners))
        is_first = np.diff(owners[order], prepend=-1) != 0
        return found[order[is_first]]

    def _keep(self, found: _Found) -> None:
        everything = self._kept + found
        chosen = []
        for band in range(len(self._radii)):
            (members,) = np.nonzero(everything.band == band)
            if len(members) > self._limit:
                nearest = np.lexsort((everything.second[members], everything.first[members], everything.gap[members]))
                members = members[nearest[: self._limit]]
            chosen.append(members)
        self._kept = everything[np.concatenate(chosen)]

    def _exact(self, first: _Rows, second: _Rows) -> _Floats:
        """The distances of pairs of rows by ``domain.distances``."""
        found = np.empty(len(first))
        order = np.argsort(first, kind="stable")
        cuts = np.flatnonzero(np.diff(first[order])) + 1
        for pairs in np.split(order, cuts) if len(order) else ():
            query, others = self._rows[first[pairs[0]]], self._rows[second[pairs]]
            found[pairs] = distances(self._metric, self._vectors[query], self._vectors[others])
        return found


@dataclass(frozen=True, slots=True)
class _Space:
    """Embeddings from their mean, in principal directions, the longest of length 1; differences are as they were.

    Each side of a product has two more columns, so that its cells are ``-squared distance / 2``.

    Attributes:
        left, right: the leading directions (n, leading + 2), float32.
        left_rest, right_rest: the others.
        scale: what lengths were divided by.
        slack: how far float32 may be from a squared distance.
        is_zero: which rows have no direction.
    """

    left: Vectors
    right: Vectors
    left_rest: Vectors
    right_rest: Vectors
    scale: float
    slack: float
    is_zero: NDArray[np.bool_]

    @classmethod
    def of(cls, vectors: _Floats) -> "_Space":
        count, dimension = vectors.shape
        is_zero = np.logical_not(vectors.any(axis=1))
        centred = vectors - vectors.mean(axis=0)
        variances, directions = np.linalg.eigh(centred.T @ centred / count)
        directions = directions[:, ::-1]
        share = np.cumsum(np.maximum(variances[::-1], 0.0))
        leading = min(int(np.searchsorted(share, _VARIANCE * share[-1])) + 1, dimension)
        scale = float(np.linalg.norm(centred, axis=1).max()) or 1.0
        turned = np.empty((count, dimension), np.float32)
        for start in range(0, count, _GATHERED):
            turned[start : start + _GATHERED] = centred[start : start + _GATHERED] @ directions / scale
        # A product of float32 is off by at most dimension * 2**-24 at lengths of 1, the rounded factors by a few more;
        # squared distances are twice that.
        slack = (dimension + 16) * 2.0**-22
        return cls(*_sides(turned[:, :leading]), *_sides(turned[:, leading:]), scale, slack, is_zero)

    def compare(self, rows: slice, columns: slice, widest: float, *, scratch: "_Scratch") -> "_Tile":
        """The pairs of rows and columns whose squared distance may be at most ``widest``."""
        cells, near = scratch.of(rows.stop - rows.start, columns.stop - columns.start)
        np.matmul(self.left[rows], self.right[columns].T, out=cells)
        count = np.count_nonzero(np.greater_equal(cells, -widest / 2, out=near))
        is_dense = bool(count > _DENSE * cells.size)
        if is_dense:
            cells += self.left_rest[rows] @ self.right_rest[columns].T
            count = np.count_nonzero(np.greater_equal(cells, -widest / 2, out=near))
        return _Tile(self, rows, columns, cells, near, int(count), is_complete=is_dense)


class _Scratch:
    """Memory for one tile, used again for the next: to ask the system for it takes as long as to fill it."""

    def __init__(self) -> None:
        self._cells = np.empty(_TILE_CELLS, np.float32)
        self._near = np.empty(_TILE_CELLS, np.bool_)

    def of(self, rows: int, columns: int) -> tuple[Vectors, NDArray[np.bool_]]:
        """The cells of a tile, and which of them are near, with values of anything."""
        if rows * columns > self._cells.size:  # more photos of one person than a tile has rows
            return np.empty((rows, columns), np.float32), np.empty((rows, columns), np.bool_)
        size = slice(rows * columns)
        return self._cells[size].reshape(rows, columns), self._near[size].reshape(rows, columns)


@dataclass(frozen=True, slots=True)
class _Tile:
    """Rows compared with columns, by the leading directions or, where it is complete, by all."""

    space: _Space
    rows: slice
    columns: slice
    cells: Vectors
    near: NDArray[np.bool_]
    count: int
    is_complete: bool

    def pairs(self, start: int, stop: int) -> tuple[_Rows, _Rows, _Floats]:
        """Near pairs of some of the rows, with their squared distance by all directions."""
        part = slice(start - self.rows.start, stop - self.rows.start)
        hits = np.flatnonzero(self.near[part])
        values = self.cells[part].ravel()[hits]
        first, second = np.divmod(hits, self.cells.shape[1])
        first, second = first + start, second + self.columns.start
        if not self.is_complete:
            left, right = self.space.left_rest, self.space.right_rest
            for at in range(0, len(hits), _GATHERED):
                some = slice(at, at + _GATHERED)
                values[some] += np.einsum("ij,ij->i", left[first[some]], right[second[some]])
        return first, second, -2.0 * values.astype(np.float64)


def _sides(directions: Vectors) -> tuple[Vectors, Vectors]:
    """Both factors of the product whose cells are ``-squared distance / 2`` by these directions."""
    halves = -0.5 * np.square(directions, dtype=np.float64).sum(axis=1, keepdims=True)
    ones = np.ones_like(halves)
    left = np.concatenate((directions, halves, ones), axis=1, dtype=np.float32)
    return left, np.concatenate((directions, ones, halves), axis=1, dtype=np.float32)
