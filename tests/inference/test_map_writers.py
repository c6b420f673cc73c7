"""What is written: whole files, the source's geometry and units, scores by slice."""

from __future__ import annotations

import errno
import json
import re
from pathlib import Path

import nibabel as nib
import numpy as np
import pytest
import torch
from monai.data import MetaTensor
from monai.transforms import LoadImaged, SaveImaged

from multiad_med.card import NotCalibratedError
from multiad_med.data import StudyResults, file_sha256
from multiad_med.inference import SaveImageMapd, SaveScoresd, ScoreSlicesd, StudyMapWriter
from multiad_med.inference.scores import study_scores
from multiad_med.readers import LoadVolumed
from multiad_med.scoring import Level, NormalScores
from multiad_med.testing.brains import write_nifti
from multiad_med.testing.networks import tiny_multiad
from multiad_med.transforms import MarkOccupiedd
from multiad_med.utils.atomic import atomic_path, write_json
from multiad_med.visualize import MontageColumn, save_montage


def test_nothing_is_left_after_a_failure(tmp_path: Path) -> None:
    target = tmp_path / "sub" / "file.txt"

    def fill_the_disk() -> None:
        with atomic_path(target) as temporary:
            temporary.write_text("half")
            raise OSError(errno.ENOSPC, "No space left on device")

    with pytest.raises(OSError, match="No space left"):
        fill_the_disk()
    assert list(target.parent.iterdir()) == []


def test_an_existing_file_survives_a_failed_rewrite(tmp_path: Path) -> None:
    target = tmp_path / "file.json"
    write_json(target, {"a": 1})
    with pytest.raises(ValueError, match="JSON"):
        write_json(target, {"a": float("nan")})
    assert json.loads(target.read_text()) == {"a": 1}
    assert [p.name for p in tmp_path.iterdir()] == ["file.json"]


OBLIQUE = np.array([[1.9, 0.2, 0.1, 5], [-0.2, 1.9, 0.3, 6], [-0.1, -0.3, 4.9, 7], [0, 0, 0, 1.0]])


@pytest.mark.parametrize("load", [LoadImaged, LoadVolumed])
@pytest.mark.parametrize("units", ["mm", "micron", "meter", "unknown"])
@pytest.mark.parametrize(("sform", "qform"), [(2, 1), (0, 1), (4, 0)])
def test_written_map_has_the_sources_affine_units_and_code(
    tmp_path: Path, units: str, sform: int, qform: int, load: type
) -> None:
    source = nib.Nifti1Image(np.zeros((5, 6, 7), np.int16), None)
    source.set_sform(OBLIQUE, code=sform)
    source.set_qform(OBLIQUE, code=qform)
    source.header.set_xyzt_units(units)
    nib.save(source, tmp_path / "v.nii.gz")
    expected = nib.load(tmp_path / "v.nii.gz")
    options = {"ensure_channel_first": True, "image_only": True} if load is LoadImaged else {}
    data = load("pred", **options)({"pred": str(tmp_path / "v.nii.gz")})
    if load is LoadVolumed:
        in_mm = {"micron": 0.001, "meter": 1000}.get(units, 1) * np.array([1.9, 1.9, 4.9])
        zooms = np.linalg.norm(np.asarray(data["pred"].affine)[:3, :3], axis=0)
        np.testing.assert_allclose(zooms, in_mm, rtol=0.02)
    data["pred"] = data["pred"] + torch.rand(1, 5, 6, 7)
    SaveImaged(
        "pred",
        output_dir=tmp_path / "out",
        output_postfix="map",
        separate_folder=False,
        resample=False,
        writer=StudyMapWriter,
        output_dtype=np.float32,
        print_log=False,
    )(data)
    written = nib.load(tmp_path / "out" / "v_map.nii.gz")
    np.testing.assert_allclose(written.affine, expected.affine, atol=1e-4)
    np.testing.assert_allclose(written.header.get_zooms(), expected.header.get_zooms(), atol=1e-5)
    assert written.header.get_xyzt_units()[0] == units
    codes = [int(written.header[name]) for name in ("sform_code", "qform_code")]
    assert codes == [sform, qform]
    assert written.get_data_dtype() == np.float32
    np.testing.assert_allclose(written.get_fdata(), data["pred"][0], atol=1e-7)


@pytest.mark.parametrize("axes", [(1, 2, 0), (0, 2, 1)], ids=["sagittal", "coronal"])
def test_a_map_of_a_sagittal_or_coronal_scan_is_written(
    tmp_path: Path, axes: tuple[int, int, int]
) -> None:
    affine = np.eye(4)[[*axes, 3]].T
    path = write_nifti(tmp_path / "v.nii.gz", np.zeros((5, 6, 7), np.int16), affine)
    data = LoadVolumed("pred")({"pred": str(path)})
    data["pred"] = data["pred"] + torch.rand(1, 5, 6, 7)
    results = StudyResults(tmp_path / "out", source=tmp_path, network=tiny_multiad())
    SaveImageMapd("pred", results=results, end="map.nii.gz")(data)
    written = nib.load(tmp_path / "out" / "v_map.nii.gz")
    np.testing.assert_allclose(written.affine, affine, atol=1e-6)
    np.testing.assert_allclose(written.get_fdata(), data["pred"][0], atol=1e-7)


def _scored(tmp_path: Path, affine: np.ndarray, *, volume_rate: float = 0.1) -> dict:
    network = tiny_multiad()
    network.calibrated.fill_(True)
    network.card.levels = {
        Level.SLICE: NormalScores((0.6,) * 19, 0.05),
        Level.VOLUME: NormalScores((0.95, *[0.6] * 18), volume_rate),
    }
    network.pixel_false_positive_rate.fill_(0.01)
    path = write_nifti(tmp_path / "v.nii.gz", np.zeros((4, 4, 5), np.int16), affine)
    maps = torch.zeros(1, 4, 4, 5)
    maps[0, 1, 1, 3], maps[0, 2, 2, 2] = 0.9, 0.5
    maps[0, 0, 0, 2] = 0.99  # outside the foreground
    foreground = torch.zeros(1, 4, 4, 5)
    foreground[:, 1:3, 1:3, 1:4] = 1
    data = {"pred": MetaTensor(maps), "image": maps, "foreground": foreground}
    data = ScoreSlicesd("pred", network=network)(MarkOccupiedd("image")(data))
    data["pred"] = MetaTensor(maps, affine=affine, meta={"filename_or_obj": str(path)})
    results = StudyResults(tmp_path / "out", source=tmp_path, network=network)
    result = SaveScoresd("pred", network=network, results=results)(data)
    assert result["volume_score"] == pytest.approx(0.9)
    return json.loads((tmp_path / "out" / "v_anomaly.json").read_text())


def test_scores_are_the_maxima_in_the_foreground_by_slice(tmp_path: Path) -> None:
    content = _scored(tmp_path, np.eye(4))
    assert content["axis"] == 2
    assert [s["slice"] for s in content["slices"]] == [1, 2, 3]
    assert [s["score"] for s in content["slices"]] == pytest.approx([0, 0.5, 0.9])
    assert [s["flagged"] for s in content["slices"]] == [False, False, True]
    assert content["not_scored_slices"] == [0, 4]
    assert content["thresholds"]["slice_false_positive_rate"] == pytest.approx(0.05)
    assert content["image_sha256"] == file_sha256(tmp_path / "v.nii.gz")
    assert len(content["model_sha256"]) == 64
    assert set(content["versions"]) == {"multiad-med", "monai", "torch"}


def test_a_volume_is_judged_by_the_normal_volumes_and_not_by_the_slices(tmp_path: Path) -> None:
    content = _scored(tmp_path, np.eye(4))
    # One of 19 normal volumes scores higher than 0.9: (1 + 1) / 20.
    assert content["volume_p_value"] == pytest.approx(0.1)
    assert content["volume_flagged"] is True
    assert content["verdict"] == "anomalous"
    content = _scored(tmp_path, np.eye(4), volume_rate=0.05)
    assert content["volume_flagged"] is False
    assert content["verdict"] == "normal"
    assert content["slices"][-1]["flagged"] is True
    assert content["slices"][-1]["p_value"] == pytest.approx(1 / 20)
    assert content["thresholds"]["volume_score"] == pytest.approx(0.95, abs=1e-6)
    assert content["thresholds"]["normal_volumes"] == 19


def test_a_rate_out_of_reach_gives_a_p_value_and_no_verdict(tmp_path: Path) -> None:
    content = _scored(tmp_path, np.eye(4), volume_rate=0.01)
    assert content["volume_flagged"] is None
    assert content["volume_p_value"] == pytest.approx(0.1)
    assert content["thresholds"]["volume_score"] is None
    verdict = r"^no verdict: 19 normal volumes\b.*\b5 %.*\b99\b.*\b1 %"
    assert re.search(verdict, content["verdict"])


def test_slices_are_numbered_as_in_the_source(tmp_path: Path) -> None:
    content = _scored(tmp_path, np.diag([1, 1, -2.0, 1]))
    assert {s["slice"]: round(s["score"], 6) for s in content["slices"]} == {1: 0.9, 2: 0.5, 3: 0}
    sagittal = np.array([[0, 0, -1, 0], [1, 0, 0, 0], [0, 1, 0, 0], [0, 0, 0, 1.0]])
    assert _scored(tmp_path, sagittal)["axis"] == 1


def test_uncalibrated_network_gives_no_scores() -> None:
    data = dict.fromkeys(("pred", "image", "foreground"), torch.ones(1, 4, 4, 2))
    with pytest.raises(NotCalibratedError, match="not calibrated"):
        ScoreSlicesd("pred", network=tiny_multiad())(data)


def test_montage_shows_anterior_above_and_the_patients_right_on_the_left(tmp_path: Path) -> None:
    from matplotlib.image import imread

    image = np.zeros((40, 60))
    image[30:38, 45:55] = 1.0  # right (x large in RAS+) and anterior (y large)
    lesion = image > 0
    save_montage([MontageColumn("s", image, np.zeros_like(image), lesion)], tmp_path / "m.png")
    shown = imread(tmp_path / "m.png")[..., :3]
    grey = (np.ptp(shown, axis=-1) < 0.02) & (shown.mean(axis=-1) > 0.9)
    top_panel = grey[int(0.12 * len(grey)) : len(grey) // 3, : int(0.75 * grey.shape[1])]
    blocks = np.argwhere(top_panel)
    panel_middle = np.array(top_panel.shape) / 2
    assert np.median(blocks[:, 0]) < panel_middle[0] + 5
    assert np.median(blocks[:, 1]) < panel_middle[1]


def test_montage_shows_images_as_they_are(tmp_path: Path) -> None:
    from matplotlib.image import imread

    image = np.zeros((40, 60))
    image[2:10, 5:15] = 1.0  # upper left
    save_montage([MontageColumn("s", image, 0 * image, upright=True)], tmp_path / "m.png")
    shown = imread(tmp_path / "m.png")[..., :3]
    grey = (np.ptp(shown, axis=-1) < 0.02) & (shown.mean(axis=-1) > 0.9)
    top_panel = grey[int(0.12 * len(grey)) : len(grey) // 2, : int(0.75 * grey.shape[1])]
    block = np.median(np.argwhere(top_panel), axis=0)
    assert (block < np.array(top_panel.shape) / 2).all()


def test_montage_draws_a_line_around_what_reaches_the_threshold(tmp_path: Path) -> None:
    from matplotlib.image import imread

    def white(heat: np.ndarray) -> int:
        column = MontageColumn("", np.zeros((40, 60)), heat, threshold=0.7)
        save_montage([column], tmp_path / "m.png")
        lower = imread(tmp_path / "m.png")[..., :3]
        lower = lower[len(lower) // 2 :, : int(0.75 * lower.shape[1])]
        return int((lower.min(axis=-1) > 0.9).sum())

    heat = np.zeros((40, 60))
    heat[10:30, 20:40] = 0.69
    below = white(heat)
    heat[10:30, 20:40] = 0.71
    assert white(heat) > below + 100


def test_montage_needs_a_column(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match="at least one"):
        save_montage([], tmp_path / "m.png")


@pytest.mark.parametrize("flipped", [False, True])
def test_two_channels_give_local_and_semantic_parts_of_each_slice(
    tmp_path: Path, flipped: bool
) -> None:
    hazards = torch.tensor([[1.0, 4.0, 2.0], [3.0, 0.0, 5.0]])  # of place and whole image, by slice
    network = tiny_multiad(fusion="hazard")
    network.card.network = {"fusion": "hazard"}
    network.calibrated.fill_(True)
    maps = (hazards / (hazards + 1)).reshape(2, 1, 1, 3).expand(2, 4, 4, 3).clone()
    maps[0, 1:] *= 0.5
    foreground = torch.ones(1, 4, 4, 3)
    affine = np.diag([1.0, 1.0, -1.0 if flipped else 1.0, 1.0])
    path = tmp_path / "v.nii.gz"
    write_nifti(path, np.zeros((4, 4, 3)), affine)
    data = {"pred": MetaTensor(maps), "image": torch.ones(1, 4, 4, 3), "foreground": foreground}
    data = ScoreSlicesd("pred", network=network)(MarkOccupiedd("image")(data))
    assert data["pred"].shape == (1, 4, 4, 3)
    assert data["score_parts"].shape == (2, 3)
    content = study_scores(data["slice_scores"], affine, network=network, parts=data["score_parts"])
    order = [2, 1, 0] if flipped else [0, 1, 2]
    for row, number in zip(content["slices"], order, strict=True):
        local, semantic = (1 - 2 ** -float(h) for h in hazards[:, number])
        assert row["local_probability"] == pytest.approx(local, abs=1e-5)
        assert row["semantic_probability"] == pytest.approx(semantic, abs=1e-5)
        assert row["joint_probability"] == pytest.approx(1 - (1 - local) * (1 - semantic), abs=1e-5)
    # 2 and 5 add up to most.
    assert content["volume_score"] == pytest.approx(7 / 8, abs=1e-5)
    assert content["local_probability"] == pytest.approx(0.75, abs=1e-5)


def test_parts_of_other_fusions_are_no_probabilities() -> None:
    network = tiny_multiad()
    network.calibrated.fill_(True)
    content = study_scores([0.2, 0.4], np.eye(4), network=network, parts=[[0.1, 0.2], [0.1, 0.3]])
    assert not [key for key in content if key.endswith("_probability")]
