from pathlib import Path

import pytest

from facescreen.errors import EvaluationDataError
from facescreen.services.dataset import Dataset, person_of, read_dataset

PHOTO = b"\xff\xd8\xff"
"""As every JPEG begins; nothing here looks at more."""


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """Photos of two people, each in a folder."""
    made = tmp_path / "photos"
    for name in ("ada/1.jpg", "ada/2.PNG", "bob/1.jpg", "bob/old/2.jpg"):
        (made / name).parent.mkdir(parents=True, exist_ok=True)
        (made / name).write_bytes(PHOTO)
    return made


def read(folder: Path, *, pairs: str | None = None, groups: str | None = None, folds: int = 1) -> Dataset:
    files: dict[str, Path] = {}
    for name, text in (("pairs", pairs), ("groups", groups)):
        if text is not None:
            files[name] = folder.parent / f"{name}.csv"
            files[name].write_text(text)
    return read_dataset(folder, **files, folds=folds)


def test_every_folder_is_a_person(folder: Path) -> None:
    for name in (".hidden.jpg", "ada/._1.jpg", ".cache/1.jpg", "@eaDir/1.jpg/2.jpg", "ada/.DS_Store"):
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        (folder / name).write_bytes(PHOTO)
    (folder / "ada" / "notes.txt").touch()
    (folder / "cid").mkdir()
    dataset = read(folder)
    assert dataset.photos == ("ada/1.jpg", "ada/2.PNG", "bob/1.jpg", "bob/old/2.jpg")
    assert dataset.people == ("ada", "ada", "bob", "bob")
    assert (dataset.pairs, dataset.groups) == ((), {})
    assert {rejected.file: rejected.code for rejected in dataset.left_out} == {
        ".hidden.jpg": "hidden_file",
        ".cache": "hidden_file",
        "@eaDir": "recycle_bin",
        "ada/notes.txt": "unsupported_format",
        "cid": "folder_without_photos",
    }


def test_names_in_a_flat_folder_end_in_a_number(tmp_path: Path) -> None:
    for name in ("Ada_L_0001.jpg", "Ada_L_0002.jpg", "Bob_1.jpg"):
        (tmp_path / name).write_bytes(PHOTO)
    assert read_dataset(tmp_path).people == ("Ada_L", "Ada_L", "Bob")


@pytest.mark.parametrize("name", ["ada.jpg", "_0001.jpg", "ada_.jpg", "ada_1b.jpg"])
def test_whose_photo_it_is_must_be_told(name: str) -> None:
    with pytest.raises(EvaluationDataError, match=f"whose photo {name} is cannot be told"):
        person_of(name)


@pytest.mark.parametrize("names", [[], ["ada_1.jpg", "ada_2.jpg"], ["ada_1.jpg", "bob_1.jpg"]])
def test_without_pairs_of_both_kinds_there_is_nothing_to_measure(tmp_path: Path, names: list[str]) -> None:
    for name in names:
        (tmp_path / name).write_bytes(PHOTO)
    with pytest.raises(EvaluationDataError, match="two or more people"):
        read_dataset(tmp_path)


ROWS = "ada/1.jpg,ada/2.PNG,1\nada/1.jpg,bob/1.jpg,0\nbob/1.jpg,bob/old/2.jpg,1\nbob/1.jpg,ada/2.PNG,0\n"


def test_pairs_are_cut_into_folds_in_their_order(folder: Path) -> None:
    pairs = read(folder, pairs="\ufefffile_a,file_b,same\n" + ROWS, folds=2).pairs
    assert [(pair.first, pair.second) for pair in pairs] == [(0, 1), (0, 2), (2, 3), (2, 1)]
    assert [pair.same for pair in pairs] == [True, False, True, False]
    assert [pair.fold for pair in pairs] == [0, 0, 1, 1]


def test_folds_of_the_list_are_kept(folder: Path) -> None:
    rows = "".join(f"{fold},{row}\n" for fold, row in zip("xyyx", ROWS.splitlines(), strict=True))
    pairs = read(folder, pairs="fold,file_a,file_b,same\n" + rows, folds=10).pairs
    assert [pair.fold for pair in pairs] == [0, 1, 1, 0]


@pytest.mark.parametrize(
    ("pairs", "message"),
    [
        ("", "pairs.csv: the first line must name the columns file_a, file_b, same"),
        ("file_a,file_b\n", "must name the columns"),
        ("file_a,file_b,same\n" + ROWS + "ada/1.jpg,ada/3.jpg,1\n", "line 6: there is no photo 'ada/3.jpg'"),
        ("file_a,file_b,same\nada/1.jpg,ada/2.PNG,yes\n", "line 2: same must be 1 or 0"),
        ("file_a,file_b,same\nada/1.jpg,ada/2.PNG\n", "line 2: file_a or file_b or same is missing"),
        ("file_a,file_b,same\nada/1.jpg,ada/2.PNG,1\n", "there must be pairs of one person and pairs of two"),
        ("file_a,file_b,same\n", "there must be pairs of one person and pairs of two"),
        ("file_a,file_b,same,fold\nada/1.jpg,ada/2.PNG,1,1\nada/1.jpg,bob/1.jpg,0,\n", "some pairs have a fold"),
        ("file_a,file_b,same\n" + ROWS + '"', "pairs.csv is no CSV file"),
    ],
)
def test_a_list_of_pairs_that_is_none_is_refused_in_one_line(folder: Path, pairs: str, message: str) -> None:
    with pytest.raises(EvaluationDataError) as refused:
        read(folder, pairs=pairs)
    assert message in str(refused.value)
    assert "\n" not in str(refused.value)


def test_there_are_no_more_folds_than_pairs(folder: Path) -> None:
    with pytest.raises(EvaluationDataError, match="4 pairs cannot be cut into 5 folds"):
        read(folder, pairs="file_a,file_b,same\n" + ROWS, folds=5)


def test_a_picture_is_no_list_of_pairs(folder: Path, tmp_path: Path) -> None:
    (tmp_path / "pairs.csv").write_bytes(b"\xff\xd8\xff\xe0\x00")
    with pytest.raises(EvaluationDataError, match="no CSV file"):
        read_dataset(folder, pairs=tmp_path / "pairs.csv")


def test_people_may_be_in_one_group(folder: Path) -> None:
    assert read(folder, groups="person,group\nada,x\nada,x\n").groups == {"ada": "x"}
    with pytest.raises(EvaluationDataError, match="line 3: 'ada' is in another group already"):
        read(folder, groups="person,group\nada,x\nada,y\n")
    with pytest.raises(EvaluationDataError, match="line 2: there is no photo of 'eve'"):
        read(folder, groups="person,group\neve,x\n")
