"""Photos of known people in a folder, and the lists of pairs and groups that come with them."""

import csv
import re
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from facescreen.errors import EvaluationDataError, RejectedFile
from facescreen.images.survey import photos_below

_NUMBERED = re.compile(r"(?P<person>.+)_\d+", re.DOTALL)


@dataclass(frozen=True, slots=True)
class LabelledPair:
    """Two photos, by their position among the photos, and whether they show one person.

    Attributes:
        fold: counted from 0.
    """

    first: int
    second: int
    same: bool
    fold: int


@dataclass(frozen=True, slots=True)
class Dataset:
    """Photos whose people are known.

    Attributes:
        photos: paths below ``folder`` with forward slashes, sorted.
        people: whose each photo is.
        pairs: empty without a list of them.
        groups: of the people that somebody put into one.
        left_out: what else lies in the folder, and why it is not measured.
    """

    folder: Path
    photos: tuple[str, ...]
    people: tuple[str, ...]
    pairs: tuple[LabelledPair, ...]
    groups: Mapping[str, str]
    left_out: tuple[RejectedFile, ...] = ()


def read_dataset(folder: Path, *, pairs: Path | None = None, groups: Path | None = None, folds: int = 10) -> Dataset:
    """The photos in a folder of people.

    Either every person has a folder, or all photos lie in one and the part of a file's name before its last
    ``_<number>`` is the person, as in Labeled Faces in the Wild. Photos are told by their bytes.

    Args:
        pairs: CSV file with the columns ``file_a``, ``file_b``, ``same`` (1 or 0) and, if folds are to be kept,
            ``fold``; files are named as in :attr:`Dataset.photos`.
        groups: CSV file with the columns ``person`` and ``group``.
        folds: into how many the pairs are cut, in their order, where the list has no column ``fold``.

    Raises:
        EvaluationDataError: there are no two photos of one person or no two people, somebody cannot be told from a
            name, or a list is not as described or names what is not there.
    """
    found = photos_below(folder)
    photos = tuple(found.files)
    people = tuple(map(person_of, photos))
    if len(set(people)) < 2 or len(set(people)) == len(people):
        raise EvaluationDataError("the folder must hold photos of two or more people, and two or more of one of them")
    return Dataset(
        folder,
        photos,
        people,
        pairs=() if pairs is None else _read_pairs(pairs, photos, folds=folds),
        groups={} if groups is None else _read_groups(groups, frozenset(people)),
        left_out=tuple(found.left_out),
    )


def person_of(photo: str) -> str:
    """Whose the photo of this name is.

    Raises:
        EvaluationDataError: the name does not tell.
    """
    folder, slash, _ = photo.partition("/")
    if slash:
        return folder
    numbered = _NUMBERED.fullmatch(Path(photo).stem)
    if numbered is None:
        raise EvaluationDataError(
            f"whose photo {photo} is cannot be told: put it into a folder of the person, or name it <person>_<number>"
        )
    return numbered["person"]


def _read_pairs(file: Path, photos: Sequence[str], *, folds: int) -> tuple[LabelledPair, ...]:
    rows = list(_rows(file, ("file_a", "file_b", "same")))
    positions = {photo: position for position, photo in enumerate(photos)}
    labels = {"1": True, "0": False}
    for line, row in rows:
        for key in ("file_a", "file_b"):
            if row[key] not in positions:
                raise EvaluationDataError(f"{file.name}, line {line}: there is no photo {row[key]!r} in the folder")
        if row["same"] not in labels:
            raise EvaluationDataError(f"{file.name}, line {line}: same must be 1 or 0")
    if {row["same"] for _, row in rows} != set(labels):
        raise EvaluationDataError(f"{file.name}: there must be pairs of one person and pairs of two")
    named = [row.get("fold") for _, row in rows]
    if all(named):
        order = {fold: number for number, fold in enumerate(dict.fromkeys(named))}
        numbers = [order[fold] for fold in named]
    elif any(named):
        raise EvaluationDataError(f"{file.name}: some pairs have a fold and others none")
    elif folds > len(rows):
        raise EvaluationDataError(f"{file.name}: {len(rows)} pairs cannot be cut into {folds} folds")
    else:
        numbers = [position * folds // len(rows) for position in range(len(rows))]
    return tuple(
        LabelledPair(positions[row["file_a"]], positions[row["file_b"]], same=labels[row["same"]], fold=fold)
        for (_, row), fold in zip(rows, numbers, strict=True)
    )


def _read_groups(file: Path, people: frozenset[str]) -> dict[str, str]:
    groups: dict[str, str] = {}
    for line, row in _rows(file, ("person", "group")):
        person, group = row["person"], row["group"]
        if person not in people:
            raise EvaluationDataError(f"{file.name}, line {line}: there is no photo of {person!r} in the folder")
        if groups.setdefault(person, group) != group:
            raise EvaluationDataError(f"{file.name}, line {line}: {person!r} is in another group already")
    return groups


def _rows(file: Path, columns: Sequence[str]) -> Iterator[tuple[int, dict[str, str]]]:
    """Each row with the number of its line; in these columns something stands."""
    try:
        with file.open(newline="", encoding="utf-8-sig") as text:
            reader = csv.DictReader(text, strict=True)
            if not set(columns) <= set(reader.fieldnames or ()):
                raise EvaluationDataError(f"{file.name}: the first line must name the columns {', '.join(columns)}")
            for row in reader:
                if not all(row[column] for column in columns):
                    raise EvaluationDataError(f"{file.name}, line {reader.line_num}: {' or '.join(columns)} is missing")
                yield reader.line_num, row
    except (csv.Error, UnicodeDecodeError) as error:
        raise EvaluationDataError(f"{file.name} is no CSV file in UTF-8") from error
