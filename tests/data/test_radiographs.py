r"""CheXpert and ChestX-ray14 in the layouts of their owners."""

from __future__ import annotations

from pathlib import Path

import pytest
from layouts import write_chexpert, write_nih_chest

from captum_dcf.data.chexpert import CheXpert
from captum_dcf.data.nih_chest import NIHChest
from captum_dcf.data.sources import labels_of, open_source

HEALTHY, SICK, UNSURE = {"No Finding": "1.0"}, {"Cardiomegaly": "1.0"}, {"Cardiomegaly": "-1.0"}
OTHER, ABSENT = {"Edema": "1.0"}, {"Cardiomegaly": "0.0", "Edema": "1.0"}
MARKS = [HEALTHY, SICK, UNSURE, OTHER, ABSENT]


def study(patient: int, view: str = "view1_frontal", number: int = 1) -> str:
    return f"patient{patient:05}/study{number}/{view}.jpg"


def write_five(root: Path) -> None:
    write_chexpert(root, [(study(number), marks) for number, marks in enumerate(MARKS, 1)])


@pytest.mark.parametrize(
    ("uncertain", "negative", "expected"),
    [
        ("zeros", "healthy", {1: 0, 2: 1}),
        ("ignore", "healthy", {1: 0, 2: 1}),
        ("ones", "healthy", {1: 0, 2: 1, 3: 1}),
        ("zeros", "all", {1: 0, 2: 1, 3: 0, 4: 0, 5: 0}),
        ("ignore", "all", {1: 0, 2: 1, 4: 0, 5: 0}),
        ("ones", "all", {1: 0, 2: 1, 3: 1, 4: 0, 5: 0}),
    ],
)
def test_uncertain_marks_count_as_the_policy_says(tmp_path: Path, uncertain: str, negative: str, expected: dict):
    write_five(tmp_path)
    dataset = CheXpert(tmp_path, None, uncertain=uncertain, negative=negative, image_shape=(1, 8, 8))
    assert {int(patient[7:]): label for patient, label in zip(dataset.patients, dataset.targets)} == expected
    assert dataset.classes == ("No Finding" if negative == "healthy" else "no Cardiomegaly", "Cardiomegaly")
    assert dataset[0][0].shape == (1, 8, 8)


def test_lateral_views_are_left_out_unless_asked_for(tmp_path: Path):
    rows = [(study(1), HEALTHY), (study(2), SICK), (study(2, "view2_lateral"), SICK)]
    write_chexpert(tmp_path, rows)
    assert len(CheXpert(tmp_path, None)) == 2
    assert len(CheXpert(tmp_path, None, frontal=False)) == 3


def test_no_patient_is_on_both_sides(tmp_path: Path):
    rows = [(study(patient, number=number), (HEALTHY, SICK)[number]) for patient in range(60) for number in (0, 1)]
    write_chexpert(tmp_path, rows)
    train, test = (open_source("chexpert", tmp_path, split) for split in ("train", "test"))
    assert not set(train.patients) & set(test.patients)
    assert len(train) + len(test) == 120
    assert 0 < len(test) < 40
    # The other order, and other patients beside, change nothing.
    write_chexpert(tmp_path, [*rows[::-1], (study(77), SICK)])
    assert set(test.patients) <= set(CheXpert(tmp_path, "test").patients) <= {*test.patients, "patient00077"}


def test_valid_is_a_table_of_its_own(tmp_path: Path):
    write_five(tmp_path)
    write_chexpert(tmp_path, [(study(64541), HEALTHY), (study(64542), SICK)], "valid")
    assert CheXpert(tmp_path, "valid").patients == ["patient64541", "patient64542"]


def test_the_full_size_edition_is_read_too(tmp_path: Path):
    write_five(tmp_path)
    (tmp_path / "CheXpert-v1.0-small").rename(tmp_path / "CheXpert-v1.0")
    assert len(CheXpert(tmp_path, None)) == 2


@pytest.mark.parametrize(
    ("arguments", "says"),
    [
        ({"finding": "cardiomegally"}, "nearest is 'Cardiomegaly'"),
        ({"finding": "No Finding"}, "'No Finding'.*Cardiomegaly, Edema"),
        ({"uncertain": "maybe"}, "'maybe'.*zeros, ones, ignore"),
        ({"negative": "some"}, "'some'"),
        ({"split": "all"}, "'all'"),
    ],
)
def test_unknown_names_are_refused(tmp_path: Path, arguments: dict, says: str):
    write_five(tmp_path)
    with pytest.raises(ValueError, match=says):
        CheXpert(tmp_path, **arguments)


@pytest.mark.parametrize(
    ("old", "new", "says"),
    [
        (",-1.0,", ",maybe,", "line 4: Cardiomegaly.*'maybe'"),
        (",-1.0,", ",2,", "line 4.*'2'"),
        ("patient00003", "somebody", "line 4.*somebody"),
        ("Frontal/Lateral", "View", "no column Frontal/Lateral"),
        (",-1.0,", ",-1.0", "line 4"),
    ],
)
def test_a_damaged_table_is_refused(tmp_path: Path, old: str, new: str, says: str):
    write_five(tmp_path)
    path = tmp_path / "CheXpert-v1.0-small" / "train.csv"
    text = path.read_text()
    assert old in text
    path.write_text(text.replace(old, new))
    with pytest.raises(ValueError, match=says):
        CheXpert(tmp_path, None)


def test_what_is_missing_is_named_with_its_owner(tmp_path: Path):
    with pytest.raises(FileNotFoundError, match=r"train\.csv.*stanfordmlgroup"):
        CheXpert(tmp_path)
    write_five(tmp_path)
    (tmp_path / "CheXpert-v1.0-small" / "train" / study(2)).unlink()
    with pytest.raises(FileNotFoundError, match=r"1 of 2 images.*patient00002"):
        CheXpert(tmp_path, None)
    write_chexpert(tmp_path, [(study(1), HEALTHY)])
    with pytest.raises(ValueError, match="no image of 'Cardiomegaly'"):
        CheXpert(tmp_path, None)


NIH_ROWS = [
    ("00000001_000.png", "Cardiomegaly|Edema", "058Y"),
    ("00000001_001.png", "No Finding", "58"),
    ("00000002_000.png", "Edema", "412"),
    ("00000003_000.png", "No Finding", "006M"),
    ("00000003_001.png", "Cardiomegaly", "1"),
    ("00000004_000.png", "", ""),
]


@pytest.mark.parametrize(("negative", "expected"), [("healthy", [1, 0, 0, 1]), ("all", [1, 0, 0, 0, 1])])
def test_findings_of_the_nih(tmp_path: Path, negative: str, expected: list[int]):
    write_nih_chest(tmp_path, NIH_ROWS)
    dataset = NIHChest(tmp_path, None, negative=negative, image_shape=(1, 8, 8))
    assert dataset.targets == expected
    assert dataset[0][0].shape == (1, 8, 8)


def test_ages_are_values(tmp_path: Path):
    write_nih_chest(tmp_path, NIH_ROWS)
    dataset = open_source("nih-chest", tmp_path, None, value="age")
    # Nobody is 412 years old, and an empty cell is no age.
    assert labels_of(dataset).tolist() == pytest.approx([58, 58, 0.5, 1])
    assert dataset.classes is None


def test_the_lists_of_the_nih_say_the_split(tmp_path: Path):
    names = [name for name, _, _ in NIH_ROWS]
    write_nih_chest(tmp_path, NIH_ROWS, (names[:3], names[3:]))
    train, test = (NIHChest(tmp_path, split) for split in ("train", "test"))
    assert (train.patients, test.patients) == (["1", "1"], ["3", "3"])
    write_nih_chest(tmp_path, NIH_ROWS, (names[:4], names[4:]))
    with pytest.raises(ValueError, match="patient '3' is in both"):
        NIHChest(tmp_path)
    (tmp_path / "test_list.txt").unlink()
    with pytest.raises(FileNotFoundError, match=r"test_list\.txt.*nihcc"):
        NIHChest(tmp_path)


def test_without_lists_no_patient_is_on_both_sides(tmp_path: Path):
    rows = [
        (f"{patient:08}_{number:03}.png", ("No Finding", "Cardiomegaly")[number], "40")
        for patient in range(1, 61)
        for number in (0, 1)
    ]
    write_nih_chest(tmp_path, rows)
    train, test = (NIHChest(tmp_path, split) for split in ("train", "test"))
    assert not set(train.patients) & set(test.patients)
    assert len(train) + len(test) == 120


def test_images_in_one_folder_are_found_too(tmp_path: Path):
    write_nih_chest(tmp_path, NIH_ROWS)
    (tmp_path / "images").mkdir()
    for path in tmp_path.glob("images_*/images/*.png"):
        path.rename(tmp_path / "images" / path.name)
    assert len(NIHChest(tmp_path, None)) == 4


@pytest.mark.parametrize(
    ("arguments", "says"),
    [
        ({"finding": "Pneumonia"}, "'Pneumonia'.*Cardiomegaly, Edema"),
        ({"value": "weight"}, "'weight'.*age"),
        ({"split": "valid"}, "'valid'"),
        ({"negative": "none"}, "'none'"),
    ],
)
def test_unknown_names_of_the_nih_are_refused(tmp_path: Path, arguments: dict, says: str):
    write_nih_chest(tmp_path, NIH_ROWS)
    with pytest.raises(ValueError, match=says):
        NIHChest(tmp_path, **arguments)


def test_what_is_missing_or_damaged_of_the_nih_is_named(tmp_path: Path):
    with pytest.raises(FileNotFoundError, match=r"Data_Entry_2017\.csv.*nihcc"):
        NIHChest(tmp_path)
    write_nih_chest(tmp_path, [*NIH_ROWS, ("00000005_000.png", "No Finding", "young")])
    with pytest.raises(ValueError, match=r"line 8.*'young'"):
        NIHChest(tmp_path, None, value="age")
    next(tmp_path.glob("images_*/images/00000003_000.png")).unlink()
    with pytest.raises(FileNotFoundError, match=r"1 of 5 images.*00000003_000\.png"):
        NIHChest(tmp_path, None)
