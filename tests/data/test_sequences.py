"""Folders of several MR sequences: told by names, and chosen as the error says."""

from __future__ import annotations

import re
from collections.abc import Callable
from pathlib import Path

import pytest
from monai.bundle import ConfigParser

from multiad_med.data import DatalistError
from multiad_med.data.sequences import sequence_of
from multiad_med.preparation import find_nifti_and_dicom, load_studies
from multiad_med.resources import read_config
from multiad_med.utils.errors import user_error
from tests.dicom_files import ct_slices, random_volume, save

MR = "1.2.840.10008.5.1.4.1.1.4"
GLOB = re.compile(r"(?P<sequence>[\w*]+) \((?P<count>\d+)\): image_glob='(?P<glob>[^']+)'")


@pytest.mark.parametrize(
    ("name", "sequence"),
    [
        ("P01_Flair", "FLAIR"),
        ("P01_t2_flair_tra", "FLAIR"),
        ("BraTS-GLI-00001-000-t2f", "FLAIR"),
        ("BraTS2021_00000_t1ce", "T1c"),
        ("BraTS-GLI-00001-000-t1c", "T1c"),
        ("sub-01_ce-gadolinium_T1w", "T1c"),
        ("t1_mprage_sag_gd", "T1c"),
        ("BraTS-GLI-00001-000-t1n", "T1"),
        ("IXI217-HH-1638_t1_brain", "T1"),
        ("sub-01_space-T2w_T1w", "T1"),
        ("IXI012-HH-1211-PD", "PD"),
        ("IXI012-HH-1211-T2", "T2"),
        ("sub-01_dwi", "DWI"),
        ("scan", ""),
        ("patient_t12", ""),
        ("contrast", ""),
    ],
)
def test_names_tell_the_sequence(name: str, sequence: str) -> None:
    assert sequence_of(name) == sequence


def refused(load: Callable[[], object]) -> dict[str, str]:
    """The globs of the sequences that the error names."""
    with pytest.raises(DatalistError, match=r"several sequences.*image_glob") as e:
        load()
    return {m["sequence"]: m["glob"] for m in GLOB.finditer(str(e.value))}


FOLDERS: dict[str, tuple[str, list[str]]] = {
    "a flat folder": ("P0{}_{}.nii.gz", ["Flair", "T1c"]),
    "BraTS 2021": ("BraTS2021_0000{0}/BraTS2021_0000{0}_{1}.nii.gz", ["flair", "t1", "t1ce", "t2"]),
    "BraTS 2023": ("BraTS-GLI-0000{0}/BraTS-GLI-0000{0}-{1}.nii.gz", ["t1c", "t1n", "t2f", "t2w"]),
    "sequence first": ("p{0}/{1}_brats_2013_pat000{0}_1.nii", ["Flair", "T1c"]),
    "sequence alone": ("p{}/{}.nii.gz", ["FLAIR", "T1", "T1c"]),
    "BIDS": ("sub-{0}/anat/sub-{0}_{1}.nii.gz", ["FLAIR", "T1w", "ce-gd_T1w"]),
    "IXI": ("IXI00{}-Guys-0828-{}.nii.gz", ["PD", "T1", "T2"]),
}


@pytest.mark.parametrize("layout", FOLDERS)
def test_each_sequence_is_chosen_by_the_glob_that_the_error_gives(
    layout: str, tmp_path: Path
) -> None:
    pattern, words = FOLDERS[layout]
    for patient in "123":
        for word in words:
            path = tmp_path / pattern.format(patient, word)
            path.parent.mkdir(parents=True, exist_ok=True)
            path.touch()
            path.with_name(path.name.split(".")[0] + ".json").touch()
    globs = refused(lambda: load_studies(tmp_path, kind="mr"))
    assert refused(lambda: find_nifti_and_dicom(tmp_path, kind="mr")) == globs
    assert set(globs) == {sequence_of(word) for word in words}
    for word in words:
        splits = load_studies(tmp_path, kind="mr", image_glob=globs[sequence_of(word)])
        chosen = sorted(Path(item["image"]) for item in splits["test"])
        assert chosen == sorted(tmp_path / pattern.format(patient, word) for patient in "123")
        assert len(splits["training"]) + len(splits["validation"]) == 3


def test_masks_beside_are_left_out_by_the_globs(tmp_path: Path) -> None:
    for patient in "12":
        for word in ("t1c", "t2f", "seg"):
            (tmp_path / f"P{patient}-{word}.nii.gz").touch()
    globs = refused(lambda: load_studies(tmp_path, kind="mr"))
    items = load_studies(tmp_path, kind="mr", image_glob=globs["T1c"])["test"]
    assert [Path(item["image"]).name for item in items] == ["P1-t1c.nii.gz", "P2-t1c.nii.gz"]


def test_folders_of_sequences_are_to_be_given_one_by_one(touch_all: Callable[..., Path]) -> None:
    folder = touch_all("FLAIR/P1.nii.gz", "FLAIR/P2.nii.gz", "T1/P1.nii.gz", "T1/P2.nii.gz")
    with pytest.raises(DatalistError, match=rf"FLAIR \(2\): give {folder}/FLAIR; T1 \(2\): give "):
        load_studies(folder, kind="mr")
    assert len(load_studies(folder / "FLAIR", kind="mr")["test"]) == 2


@pytest.mark.parametrize(
    "names",
    [
        ["P1/2019/T1.nii.gz", "P1/2021/T1.nii.gz", "P2/2020/T1.nii.gz"],  # visits
        ["P1_T1w_run1.nii.gz", "P1_T1w_run2.nii.gz"],
        ["P1_T1.nii.gz", "P2_T2.nii.gz"],  # of different patients
        ["P1.nii.gz", "P1_T1.nii.gz"],  # of the first nothing is known
        ["IXI217-HH-1638_t1_brain.nii.gz", "IXI252-HH-1693_t1_brain.nii.gz"],
    ],
)
def test_several_studies_of_one_sequence_are_no_mixture(
    names: list[str], touch_all: Callable[..., Path]
) -> None:
    assert len(load_studies(touch_all(*names), kind="mr")["test"]) == len(names)


def test_ct_has_no_sequences(touch_all: Callable[..., Path]) -> None:
    folder = touch_all("P1_T1.nii.gz", "P1_T2.nii.gz")
    assert len(load_studies(folder, kind="ct")["test"]) == 2


@pytest.fixture
def touch_all(tmp_path: Path) -> Callable[..., Path]:
    def touch(*names: str) -> Path:
        for name in names:
            (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
            (tmp_path / name).touch()
        return tmp_path

    return touch


def series(folder: Path, *told: tuple[str, str, str]) -> Path:
    """A small MR series for each patient, study and description, all files in one folder."""
    for number, (patient, study, description) in enumerate(told):
        slices = ct_slices(
            random_volume(),
            SOPClassUID=MR,
            Modality="MR",
            PatientID=patient,
            StudyInstanceUID=f"1.2.{study}",
            SeriesInstanceUID=f"1.2.3.{number}",
            SeriesDescription=description,
        )
        save(slices, folder / f"{patient}_{number}")
    return folder


def test_dicom_series_of_several_descriptions_are_chosen_by_description(tmp_path: Path) -> None:
    folder = series(
        tmp_path,
        ("P1", "1", "t1_mprage_sag"),
        ("P1", "1", "t2_flair_tra"),
        ("P2", "2", "T1 MPRAGE AX"),
        ("P2", "2", "T2 FLAIR COR"),
    )
    globs = refused(lambda: load_studies(folder, kind="mr"))
    assert set(globs) == {"FLAIR", "T1"}
    assert refused(lambda: find_nifti_and_dicom(folder, kind="mr")) == globs
    items = load_studies(folder, kind="mr", image_glob=globs["FLAIR"])["test"]
    assert [Path(item["image"]).name for item in items] == ["P1_1", "P2_3"]


def test_dicom_series_are_chosen_by_path_too_and_the_others_are_told(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    folder = series(tmp_path, ("P1", "1", "a"), ("P1", "1", "b"), ("P2", "2", "a"))
    globs = refused(lambda: load_studies(folder, kind="mr"))  # words of one study that differ
    assert globs["b"] == "b"
    items = load_studies(folder, kind="mr", image_glob="P1_0/*")["test"]
    assert [Path(item["image"]).name for item in items] == ["P1_0"]
    assert re.search(r"\b2 of 3 DICOM series passed over: 'P1_0/\*'", caplog.text)


def test_dicom_studies_of_one_sequence_are_no_mixture(tmp_path: Path) -> None:
    folder = series(
        tmp_path, ("P1", "1", "T1 MPRAGE"), ("P1", "2", "T1 follow-up"), ("P2", "3", "other words")
    )
    assert len(load_studies(folder, kind="mr")["test"]) == 3


def test_real_sequences_are_told_and_chosen(real_data: Path) -> None:
    folder = real_data / "brain/BraTS-GLI-00001-000"
    globs = refused(lambda: load_studies(folder, kind="mr"))
    assert set(globs) == {"FLAIR", "T1", "T1c", "T2"}
    (item,) = load_studies(folder, kind="mr", image_glob=globs["T1c"])["test"]
    assert Path(item["image"]).name == "BraTS-GLI-00001-000-t1c.nii.gz"
    globs = refused(lambda: load_studies(real_data / "brain/brats2013", kind="mr"))
    items = load_studies(real_data / "brain/brats2013", kind="mr", image_glob=globs["T1c"])["test"]
    assert len(items) == 4
    assert len(load_studies(real_data / "brain/ixi_t1_2mm", kind="mr")["test"]) == 28


@pytest.mark.parametrize("config", ["train.json", "inference.json", "evaluate.json"])
def test_the_brain_bundle_trains_infers_and_evaluates_one_sequence(
    config: str, touch_all: Callable[..., Path]
) -> None:
    folder = touch_all("P1_Flair.nii.gz", "P1_T1c.nii.gz", "P2_Flair.nii.gz", "P2_T1c.nii.gz")
    parser = ConfigParser(read_config("multiad_brain_mri", config) | {"dataset_dir": str(folder)})
    with pytest.raises(RuntimeError) as error:
        parser.get_parsed_content("datalist")
    told = str(user_error(error.value))
    parser.update({"image_glob": GLOB.findall(told)[0][2]})
    parser.parse(reset=True)
    names = [Path(item["image"]).name for item in parser.get_parsed_content("datalist")["test"]]
    assert names == ["P1_Flair.nii.gz", "P2_Flair.nii.gz"]
