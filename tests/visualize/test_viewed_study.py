"""A study and its map come in as they lie in the body, or not at all."""

from __future__ import annotations

import json
import re
from pathlib import Path

import numpy as np
import pytest

from multiad_med.readers import LoadVolume
from multiad_med.scoring import decision
from multiad_med.testing.brains import write_nifti
from multiad_med.transforms import VolumeError
from multiad_med.visualize import ViewError, load_study
from multiad_med.visualize.viewer_page import write_page
from tests.dicom_files import ct_slices, random_volume, save
from tests.visualize.studies import MARK, SHAPE, STORED, affine, volumes, write_study


@pytest.mark.parametrize("stored", STORED)
def test_axes_are_turned_and_the_files_voxels_are_known(tmp_path: Path, stored: str) -> None:
    codes, degrees = STORED[stored]
    study, anomaly_map, mark = write_study(tmp_path, codes, degrees)
    viewed = load_study(study, anomaly_map)
    image, heat = volumes()
    np.testing.assert_array_equal(viewed.image, image)
    np.testing.assert_array_equal(viewed.anomaly_map, heat)
    np.testing.assert_allclose(viewed.affine, affine(degrees), atol=1e-4)
    np.testing.assert_array_equal((viewed.to_source @ [*MARK, 1])[:3], mark)
    values = viewed.slice_values()
    assert int(np.nanargmax(values)) == MARK[2]
    assert np.isnan(values[[0, -1]]).all()
    assert viewed.source_slice(MARK[2]) == mark[viewed.scores["axis"]]


def test_without_scores_slices_have_their_highest_map_value(tmp_path: Path) -> None:
    study, anomaly_map, _ = write_study(tmp_path, scores=False)
    viewed = load_study(study, anomaly_map)
    assert viewed.scores == {}
    assert viewed.slice_values()[MARK[2]] == pytest.approx(0.7)
    assert viewed.slice_values()[0] == pytest.approx(0.1)


def test_ct_is_shown_in_a_window(tmp_path: Path) -> None:
    image, heat = volumes()
    ct = image - 1000
    study = write_nifti(tmp_path / "ct.nii.gz", ct)
    anomaly_map = write_nifti(tmp_path / "ct_anomaly_map.nii.gz", heat)
    assert load_study(study, anomaly_map).limits == (-160, 240)
    assert load_study(study, anomaly_map, window="lung").limits == (-1350, 150)
    with pytest.raises(ViewError, match=r"'kidney'.*liver"):
        load_study(study, anomaly_map, window="kidney")


def test_dicom_series_and_its_map(tmp_path: Path) -> None:
    series = save(ct_slices(random_volume()), tmp_path / "series", seed=1)
    volume = LoadVolume()(series)
    heat = np.full(volume.shape[1:], 0.2, np.float32)
    heat[3, 2, 1] = 0.9
    anomaly_map = write_nifti(tmp_path / "series_anomaly_map.nii.gz", heat, volume.affine.numpy())
    viewed = load_study(series, anomaly_map)
    assert viewed.hounsfield
    at = np.unravel_index(int(viewed.anomaly_map.argmax()), heat.shape)
    np.testing.assert_array_equal((viewed.to_source @ [*at, 1])[:3], [3, 2, 1])


@pytest.mark.parametrize(
    ("shape", "shift", "said"),
    [(SHAPE, 0.5, "affine differs.*by up to 0.5 mm"), ((24, 28, 11), 0.0, "shape .24, 28, 11.")],
)
def test_another_grid_is_refused(
    tmp_path: Path, shape: tuple[int, int, int], shift: float, said: str
) -> None:
    study, _, _ = write_study(tmp_path)
    moved = affine()
    moved[0, 3] += shift
    other = write_nifti(tmp_path / "other.nii.gz", np.zeros(shape, np.float32), moved)
    with pytest.raises(ViewError, match=said):
        load_study(study, other)


@pytest.mark.parametrize(
    ("value", "said"), [(np.nan, "1 values.*NaN"), (np.inf, "infinite"), (1.5, "1.5.*calibrated")]
)
def test_what_is_no_map_is_refused(tmp_path: Path, value: float, said: str) -> None:
    study, _, _ = write_study(tmp_path)
    _, heat = volumes()
    heat[2, 2, 2] = value
    wrong = write_nifti(tmp_path / "wrong.nii.gz", heat, affine())
    with pytest.raises(ViewError, match=said):
        load_study(study, wrong)


def test_a_mask_is_no_map(tmp_path: Path) -> None:
    study, _, _ = write_study(tmp_path)
    mask = write_nifti(tmp_path / "mask.nii.gz", np.ones(SHAPE, np.uint8), affine())
    with pytest.raises(ViewError, match=r"anomaly map.*uint8"):
        load_study(study, mask)


def test_a_study_that_is_not_finite_is_refused(tmp_path: Path) -> None:
    image, _ = volumes()
    _, anomaly_map, _ = write_study(tmp_path)
    broken = image.astype(np.float32)
    broken[1, 1, 1] = np.nan
    study = write_nifti(tmp_path / "broken.nii.gz", broken, affine())
    with pytest.raises(VolumeError, match="1 voxels are NaN"):
        load_study(study, anomaly_map)


@pytest.mark.parametrize("lacking", ["thresholds", "volume_p_value", "verdict"])
def test_scores_that_lack_something_are_refused(tmp_path: Path, lacking: str) -> None:
    study, anomaly_map, _ = write_study(tmp_path)
    path = tmp_path / "study_anomaly.json"
    scores = json.loads(path.read_text())
    path.write_text(json.dumps({k: v for k, v in scores.items() if k != lacking}))
    told = rf"study_anomaly\.json: .*{lacking}.*inference again"
    with pytest.raises(ViewError, match=told):
        load_study(study, anomaly_map)


def test_the_verdict_is_the_volumes_by_its_own_threshold(tmp_path: Path) -> None:
    study, anomaly_map, _ = write_study(tmp_path)
    path = tmp_path / "study_anomaly.json"
    scores = json.loads(path.read_text())
    # Slices reach their threshold of 0.55, but the volume does not reach its own.
    scores |= {"volume_flagged": False, "verdict": "normal", "volume_p_value": 0.25}
    scores["thresholds"]["volume_score"] = 0.9
    path.write_text(json.dumps(scores))
    told = decision(load_study(study, anomaly_map).scores)
    assert re.search(r"\b0\.800\b.*\b0\.25\b.*\b0\.900\b.*: normal$", told)


def test_why_there_is_no_verdict_is_told(tmp_path: Path) -> None:
    study, anomaly_map, _ = write_study(tmp_path)
    path = tmp_path / "study_anomaly.json"
    scores = json.loads(path.read_text())
    scores |= {"volume_flagged": None, "verdict": "no verdict: too few normal volumes"}
    scores["thresholds"] = {"map": 0.5, "slice_score": None, "volume_score": None}
    path.write_text(json.dumps(scores))
    viewed = load_study(study, anomaly_map)
    told = decision(viewed.scores)
    assert re.search(r"\b0\.800\b.*\b0\.04\b.*: no verdict: too few normal volumes$", told)
    write_page(viewed, tmp_path / "viewer.html")
    page = (tmp_path / "viewer.html").read_text()
    assert 'id="decision" class="unknown"' in page
    assert '"sliceThreshold": null' in page


def test_scores_of_another_axis_are_refused(tmp_path: Path) -> None:
    study, anomaly_map, _ = write_study(tmp_path)
    path = tmp_path / "study_anomaly.json"
    path.write_text(json.dumps({**json.loads(path.read_text()), "axis": 1}))
    with pytest.raises(ViewError, match=r"axis 1 of the file.*12 along axis 2.*--bscans"):
        load_study(study, anomaly_map)


def test_scores_of_another_image_are_told_of(tmp_path: Path) -> None:
    study, anomaly_map, _ = write_study(tmp_path)
    assert load_study(study, anomaly_map).remarks == ()
    path = tmp_path / "study_anomaly.json"
    path.write_text(json.dumps({**json.loads(path.read_text()), "image_sha256": "0"}))
    (remark,) = load_study(study, anomaly_map).remarks
    assert "study.nii.gz" in remark


def test_bscans_are_upright_as_stored(tmp_path: Path) -> None:
    values = np.arange(5 * 4 * 3, dtype=np.int16).reshape(5, 4, 3)  # columns, rows, B-scans
    study = write_nifti(tmp_path / "eye.nii.gz", values)
    heat = (values / 100).astype(np.float32)
    anomaly_map = write_nifti(tmp_path / "eye_anomaly_map.nii.gz", heat)
    viewed = load_study(study, anomaly_map, bscans=True)
    # As on paper: rows from above, with the affine's second axis upwards.
    np.testing.assert_array_equal(viewed.image[:, ::-1, 1].T, values[:, :, 1].T)
    np.testing.assert_array_equal(viewed.affine[:3, :3], np.eye(3))
    np.testing.assert_array_equal((viewed.to_source @ [2, 3, 1, 1])[:3], [2, 0, 1])
