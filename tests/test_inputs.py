"""The table of docs/inputs.md: every kind of input does what it says there."""

from __future__ import annotations

import codecs
import json
import logging
import re
import warnings
from collections.abc import Callable
from pathlib import Path
from typing import Any

import nibabel as nib
import numpy as np
import pytest
import tifffile
from PIL import Image

from multiad_med.data.slice_dataset import open_slices
from multiad_med.preparation import load_images, load_studies, network_input
from multiad_med.readers import LoadImages, LoadVolume, LoadVolumed
from multiad_med.testing.brains import head, write_nifti
from multiad_med.transforms import (
    CheckMaskGridd,
    CheckVolume,
    FitInPlane,
    ForegroundByIntensity,
    ForegroundByIntensityd,
)
from multiad_med.utils.errors import MultiADError
from tests.dicom_files import ct_slices, random_volume, save

DOCS = Path(__file__).parents[1] / "docs" / "inputs.md"
VOLUME = head(np.random.default_rng(0))

Check = Callable[[Path], Any]


def table() -> dict[str, tuple[str, str]]:
    """What the page says: outcome and words by kind of input."""
    rows = re.findall(r"^\| ([^|]+) \| (read|told|refused) \|([^|]*)\|$", DOCS.read_text(), re.M)
    return {name: (outcome, words.strip()) for name, outcome, words in rows}


def load(path: Path) -> Any:
    return CheckVolume()(LoadVolume()(path))


def forms(folder: Path, q: int, s: int) -> None:
    image = nib.Nifti1Image(VOLUME, np.eye(4))
    other = np.eye(4)
    other[:3, 3] = 5
    image.set_qform(np.eye(4), q)
    image.set_sform(other if s else None, s)
    nib.save(image, folder / "v.nii.gz")
    load(folder / "v.nii.gz")


def pair(folder: Path) -> None:
    nib.save(nib.Nifti1Pair(VOLUME, np.eye(4)), folder / "v.img")
    np.testing.assert_array_equal(load(folder / "v.img")[0], VOLUME)


def upper_case(folder: Path) -> None:
    write_nifti(folder / "v.nii.gz", VOLUME).rename(folder / "V.NII.GZ")
    (study,) = load_studies(folder, kind="mr")["test"]
    np.testing.assert_array_equal(load(Path(study["image"]))[0], VOLUME)


def truncated(folder: Path) -> None:
    whole = write_nifti(folder / "v.nii.gz", VOLUME)
    whole.write_bytes(whole.read_bytes()[:2000])
    load(whole)


def content(name: str, text: bytes) -> Check:
    def check(folder: Path) -> None:
        (folder / name).write_bytes(text)
        load(folder / name)

    return check


def dead_link(folder: Path) -> None:
    (folder / "v.nii").symlink_to(folder / "nowhere")
    load(folder / "v.nii")


def values(array: np.ndarray) -> Check:
    return lambda folder: load(write_nifti(folder / "v.nii", array))


def padded(folder: Path) -> None:
    volume = VOLUME.astype(np.float32)
    clean = ForegroundByIntensity()(load(write_nifti(folder / "a.nii", volume)))
    x, y = np.indices(volume.shape[:2])
    outside = np.hypot(x - 19.5, y - 23.5) > 23
    assert not volume[outside].any()
    volume[outside] = -2000
    found = ForegroundByIntensity()(load(write_nifti(folder / "b.nii", volume)))
    assert np.array_equal(found, clean)


def mask(array: np.ndarray, **item: Any) -> Check:
    def check(folder: Path) -> None:
        paths = {"image": VOLUME, "label": array}
        data = {k: str(write_nifti(folder / f"{k}.nii", v)) for k, v in paths.items()}
        CheckMaskGridd("label")(LoadVolumed(["image", "label"])({**data, **item}))

    return check


def bids(folder: Path, glob: str | None = None) -> None:
    for subject in ("sub-1", "sub-2"):
        for name in ("T1w", "dseg"):
            write_nifti(folder / subject / f"{subject}_{name}.nii.gz", VOLUME)
    found = load_studies(folder, kind="mr", image_glob=glob)["test"]
    assert [Path(i["image"]).name for i in found] == ["sub-1_T1w.nii.gz", "sub-2_T1w.nii.gz"]


def stranger(folder: Path) -> None:
    write_nifti(folder / "v.nii", VOLUME)
    (folder / "v.xyz").write_bytes(b"points")
    load_studies(folder, kind="mr")


def one_subject(folder: Path) -> None:
    write_nifti(folder / "v.nii", VOLUME)
    splits = load_studies(folder, kind="mr")
    open_slices(
        folder, split="training", data=splits["training"], transform=ForegroundByIntensityd("image")
    )  # fmt: skip


def datalist(splits: dict[str, list[dict[str, Any]]], mark: bytes = b"") -> Check:
    def check(folder: Path) -> None:
        for item in (item for items in splits.values() for item in items):
            write_nifti(folder / item["image"], VOLUME)
        (folder / "datalist.json").write_bytes(mark + json.dumps(splits).encode())
        found = load_studies(folder, kind="mr")
        assert {k: len(v) for k, v in found.items() if v} == {k: len(v) for k, v in splits.items()}

    return check


def series(
    *, change: Callable[[list[Any]], Any] = lambda slices: None, extra: bytes | None = None
) -> Check:
    def check(folder: Path) -> None:
        slices = ct_slices(random_volume())
        change(slices)
        save(slices, folder)
        if extra is not None:
            (folder / "im999.dcm").write_bytes(extra)
        LoadVolume()(folder)

    return check


def where(change: Callable[[int, Any], None]) -> Check:
    def on_each(slices: list[Any]) -> None:
        for index, one in enumerate(slices):
            change(index, one)

    return series(change=on_each)


def place(x: float, z: float) -> Callable[[int, Any], None]:
    """Shift the second slice by z mm, and each one by x mm against the slice below."""

    def change(index: int, one: Any) -> None:
        first, second, third = one.ImagePositionPatient
        one.ImagePositionPatient = [first + index * x, second, third + (z if index == 1 else 0)]

    return change


def dead_slice(folder: Path) -> None:
    save(ct_slices(random_volume()), folder)
    (folder / "im999.dcm").symlink_to(folder / "gone.dcm")
    LoadVolume()(folder)


def without(slices: list[Any], which: slice) -> None:
    for one in slices[which]:
        del one.RescaleSlope


def second_series(slices: list[Any]) -> None:
    for one in slices[: len(slices) // 2]:
        one.SeriesInstanceUID = "1.2.3.99"


def one_identifier(folder: Path) -> None:
    for number in range(3):
        slices = ct_slices(random_volume())
        for one in slices:
            one.PatientID, one.SeriesInstanceUID = "ANON", f"1.2.3.{number}"
        save(slices, folder / f"p{number}")
    found = load_studies(folder, kind="ct")["test"]
    assert len({item["subject"] for item in found}) == 3


GREY = np.add.outer(np.arange(60), np.arange(80)).astype(np.uint16)


def tiff(array: np.ndarray, expected: np.ndarray | None = None, **kwargs: Any) -> Check:
    def check(folder: Path) -> None:
        tifffile.imwrite(folder / "i.tif", array, **kwargs)
        found = LoadImages()(folder / "i.tif").numpy()[0, ..., 0]
        if expected is not None:
            np.testing.assert_allclose(found, expected, atol=1e-4)

    return check


def png(path: Path, array: np.ndarray | None = None) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    Image.fromarray(GREY.astype(np.uint8) if array is None else array).save(path)
    return path


def plain_png(folder: Path) -> None:
    found = LoadImages()(png(folder / "i.png")).numpy()[0, ..., 0]
    np.testing.assert_allclose(found, GREY / 255, atol=1e-6)


def empty_image(folder: Path) -> None:
    (folder / "i.png").write_bytes(b"")
    LoadImages()(folder / "i.png")


def tree(*names: str, images: int) -> Check:
    def check(folder: Path) -> None:
        for name in ("train/good/a.png", "train/good/b.png", "test/good/c.png", *names):
            png(folder / "bolt" / name)
        found = load_images(folder)
        assert sum(len(items) for items in found.values()) == images

    return check


def mask_beside(folder: Path) -> None:
    for number in range(6):
        png(folder / "good" / f"{number}.png")
        png(folder / "bad" / f"{number}.png")
        png(folder / "bad" / f"{number}_mask.png", np.pad(np.full((9, 9), 255, np.uint8), 20))
    items = [item for items in load_images(folder).values() for item in items]
    assert len({str(item["image"]) for item in items}) == 12
    assert len({str(item["label"]) for item in items if "label" in item}) == 6


def sequences(*names: str, glob: str | None = None, studies: int = 0) -> Check:
    def check(folder: Path) -> None:
        for name in names:
            write_nifti(folder / name, VOLUME)
        assert len(load_studies(folder, kind="mr", image_glob=glob)["test"]) == studies

    return check


def mr_series(folder: Path) -> None:
    for number, description in enumerate(("t1_mprage", "t2_flair")):
        slices = ct_slices(
            random_volume(),
            Modality="MR",
            SeriesInstanceUID=f"1.2.3.{number}",
            SeriesDescription=description,
        )
        save(slices, folder / f"{number}")
    load_studies(folder, kind="mr")


def images(*names: str, trained: int = 0, tested: int = 0) -> Check:
    def check(folder: Path) -> None:
        for name in names:
            (folder / Path(name).parent).mkdir(parents=True, exist_ok=True)
            if name.endswith(".png"):
                png(folder / name)
        found = load_images(folder)
        assert len(found["training"]) + len(found["validation"]) == trained
        assert len(found["test"]) == tested

    return check


def several_shapes(folder: Path) -> None:
    for name, shape in (("a", (40, 60)), ("b", (40, 60)), ("c", (60, 40))):
        Image.fromarray(np.zeros(shape, np.uint8)).save(folder / f"{name}.png")
    items = [{"image": str(path)} for path in sorted(folder.iterdir())]
    assert network_input(source=folder, images=items)["size"] == [224, 320]


def other_shape(folder: Path) -> None:
    Image.fromarray(np.zeros((60, 40), np.uint8)).save(folder / "a.png")
    fit = FitInPlane([224, 320], keep_aspect=False, aspects=(1.5, 1.5))
    assert fit(LoadImages()(folder / "a.png")).shape[1:3] == (224, 320)


MIXED = ("P1_Flair.nii.gz", "P1_T1c.nii.gz", "P2_Flair.nii.gz", "P2_T1c.nii.gz")
GOOD = tuple(f"{number}.png" for number in range(5))

EMPTY = np.zeros(VOLUME.shape, np.uint8)
WITH_NAN = np.where(VOLUME > 600, np.nan, VOLUME).astype(np.float32)
TWO = {
    "training": [{"image": "a.nii", "subject": "x"}],
    "test": [{"image": "b.nii", "subject": "x"}],
}
CLASSES = {"test": [{"image": "a.nii", "label": 0}, {"image": "b.nii", "label": 1}]}

CHECKS: dict[str, Check] = {
    "NIfTI with both codes 0": lambda folder: forms(folder, 0, 0),
    "NIfTI whose qform and sform differ": lambda folder: forms(folder, 1, 4),
    "NIfTI pair, .img and .hdr": pair,
    "NIfTI with an upper-case ending": upper_case,
    "truncated NIfTI": truncated,
    "zero-byte NIfTI": content("empty.nii", b""),
    "link that leads nowhere": dead_link,
    "text file named .nii": content("v.nii", b"not an image" * 100),
    "constant volume": values(np.ones((4, 5, 6), np.int16)),
    "volume with NaN": values(WITH_NAN),
    "volume with padding of -2000": padded,
    "mask on another grid": mask(np.zeros((3, 3, 3), np.uint8)),
    "mask of an anomalous image, empty": mask(EMPTY, anomalous=True),
    "segmentation beside its image (BIDS), without a glob": bids,
    "the same with `image_glob`": lambda folder: bids(folder, "**/*_T1w.nii.gz"),
    "file of another kind in a folder": stranger,
    "several MR sequences of each patient": sequences(*MIXED),
    "one of several sequences by `image_glob`": sequences(
        *MIXED, glob="**/*_T1c.nii.gz", studies=2
    ),
    "several studies of a patient, of one sequence": sequences(
        "p1/2019/T1.nii", "p1/2021/T1.nii", "p2/T1.nii", studies=3
    ),
    "one subject only, for training": one_subject,
    "datalist with a byte order mark": datalist({"test": [{"image": "a.nii"}]}, codecs.BOM_UTF8),
    "datalist with a class as label": datalist(CLASSES),
    "datalist with a subject in two splits": datalist(TWO),
    "CT series with rescaling to HU": series(),
    "CT without rescale slope": series(change=lambda slices: without(slices, slice(None))),
    "CT of which one slice lacks rescaling": series(change=lambda s: without(s, slice(1, 2))),
    "CT rescaled to another unit than HU": where(lambda i, s: setattr(s, "RescaleType", "US")),
    "series with a missing slice": series(change=lambda slices: slices.pop(2)),
    "series with a doubled slice": series(change=lambda slices: slices.append(slices[2])),
    "series with uneven spacing": where(place(0, 0.7)),
    "series of several orientations": where(
        lambda i, s: i == 1 and setattr(s, "ImageOrientationPatient", [0, 1, 0, 0, 0, 1])
    ),
    "series with gantry tilt": where(place(1, 0)),
    "localiser among the slices": where(
        lambda i, s: i == 1 and setattr(s, "ImageType", ["ORIGINAL", "PRIMARY", "LOCALIZER"])
    ),
    "inverted grey (MONOCHROME1) or colour": where(
        lambda i, s: setattr(s, "PhotometricInterpretation", "MONOCHROME1")
    ),
    "series with a zero-byte file": series(extra=b""),
    "series with a dead link": dead_slice,
    "several series in one folder": series(change=second_series),
    "three patients with one PatientID, in folders": one_identifier,
    "MR series of several descriptions in a study": mr_series,
    "8-bit PNG": plain_png,
    "16-bit TIFF, WhiteIsZero": tiff(
        65535 - GREY * 400, GREY * 400 / 65535, photometric="miniswhite"
    ),
    "signed 16-bit TIFF": tiff((GREY * 400.0 - 2**15).astype(np.int16), GREY * 400 / 65535),
    "12 bits in 16": tiff(GREY * 20),
    "32-bit TIFF": tiff(GREY.astype(np.int32) * 9999),
    "floating-point TIFF, with NaN or without": tiff(
        np.where(GREY > 1, GREY, np.nan).astype(np.float32)
    ),
    "image of one value": tiff(np.full_like(GREY, 7), 7 / 65535),
    "zero-byte image": empty_image,
    "images in a sub-folder of train/good": tree("train/good/monday/d.png", images=4),
    "image loose in test": tree("test/loose.png", images=4),
    "defects in train/, without masks": tree("train/bad/d.png", images=4),
    "good and bad images in folders, without masks": images(
        *(f"good/{name}" for name in GOOD), "scratch/a.png", "dent/b.png", trained=4, tested=7
    ),
    "normal images in train itself, good and bad ones in test": images(
        *(f"train/{name}" for name in GOOD),
        "test/good/a.png",
        "test/bad/b.png",
        trained=5,
        tested=2,
    ),
    "bad images beside an empty folder good": images("good/none.txt", "bad/a.png"),
    "mask beside its image": mask_beside,
    "images of several shapes, for training": several_shapes,
    "image of a shape that the training had not": other_shape,
}


def test_the_page_and_the_checks_have_the_same_rows() -> None:
    assert list(table()) == list(CHECKS)


@pytest.mark.parametrize("name", list(CHECKS))
def test_an_input_does_what_the_page_says(
    name: str, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    outcome, words = table()[name]
    with caplog.at_level(logging.WARNING), warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        if outcome == "refused":
            with pytest.raises(MultiADError, match=re.escape(words)):
                CHECKS[name](tmp_path)
            return
        CHECKS[name](tmp_path)
    ours = [str(w.message) for w in caught if issubclass(w.category, UserWarning)]
    told = "\n".join([*(r.getMessage() for r in caplog.records), *ours])
    assert words in told
    if outcome == "read":
        assert not told
