"""Inference through MONAI Label's interface: maps and labels on the study's own grid."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import nibabel as nib
import numpy as np
import pytest
import SimpleITK

from multiad_med.inference.severity import (
    SEVERITY_COLOURS,
    SeverityLevel,
    SeverityThresholds,
    severity_levels,
)
from tests.label.conftest import BRAIN, LIVER, RETINA, Server


def image_of(response: Any, path: Path) -> nib.Nifti1Image:
    assert response.status_code == 200, response.text
    path.write_bytes(response.content)
    return nib.load(path)


@pytest.mark.parametrize("study", ["a", "oblique", "permuted"])
def test_the_heatmap_is_the_bundles_own_map_on_the_studys_grid(
    server: Server, own_maps: Callable[..., Path], tmp_path: Path, study: str
) -> None:
    source = nib.load(server.studies / f"{study}.nii.gz")
    (tmp_path / "in").mkdir()
    (tmp_path / "in" / f"{study}.nii.gz").symlink_to(server.studies / f"{study}.nii.gz")
    own = own_maps(BRAIN, tmp_path / "in")
    expected = nib.load(own / f"{study}_anomaly_map.nii.gz")
    response = server.ask(BRAIN, study, "image", result_dtype="float32")
    heatmap = image_of(response, tmp_path / "heatmap.nii.gz")
    assert heatmap.shape == source.shape
    assert heatmap.get_data_dtype() == np.float32
    np.testing.assert_allclose(heatmap.affine, source.affine, atol=1e-5)
    values = np.asarray(heatmap.dataobj)
    np.testing.assert_array_equal(values, np.asarray(expected.dataobj))
    assert 0 < values.max() < 1
    assert len(np.unique(values)) > 100

    scores = json.loads((own / f"{study}_anomaly.json").read_text())
    found = server.infer(BRAIN, study).json()
    assert found["anomaly_score"] == pytest.approx(scores["volume_score"], abs=1e-6)
    assert found["anomalous"] == scores["volume_flagged"]
    assert found["verdict"] == scores["verdict"]
    assert found["p_value"] == pytest.approx(scores["volume_p_value"])
    assert found["axis"] == scores["axis"]
    assert found["thresholds"] == scores["thresholds"]
    assert [s["slice"] for s in found["slices"]] == [s["slice"] for s in scores["slices"]]


def test_the_label_has_three_severity_levels_of_the_map(server: Server, tmp_path: Path) -> None:
    response = server.ask(BRAIN, "permuted", "image", result_dtype="float32")
    values = np.asarray(image_of(response, tmp_path / "map.nii.gz").dataobj)
    low, moderate, high = (float(q) for q in np.quantile(values[values > 0], [0.3, 0.6, 0.9]))
    levels = {"threshold_low": low, "threshold_moderate": moderate, "threshold_high": high}
    label = image_of(server.ask(BRAIN, "permuted", "image", **levels), tmp_path / "label.nii.gz")
    assert label.get_data_dtype() == np.uint8
    assert label.shape == nib.load(server.studies / "permuted.nii.gz").shape
    expected = severity_levels(values, SeverityThresholds(low, moderate, high))
    np.testing.assert_array_equal(np.asarray(label.dataobj), expected)
    assert set(np.unique(expected)) == {0, 1, 2, 3}


def test_the_stock_clients_request_is_not_all_zero(server: Server, tmp_path: Path) -> None:
    response = server.ask(
        BRAIN, "oblique", "all", result_extension=".nrrd", result_dtype="uint8", device="cpu"
    )
    assert response.status_code == 200
    assert "multipart" in response.headers["content-type"]
    start = response.content.index(b"NRRD0")
    (tmp_path / "label.nrrd").write_bytes(response.content[start:])
    label = SimpleITK.ReadImage(str(tmp_path / "label.nrrd"))
    source = SimpleITK.ReadImage(str(server.studies / "oblique.nii.gz"))
    assert label.GetPixelID() == SimpleITK.sitkUInt8
    assert SimpleITK.GetArrayViewFromImage(label).any()
    assert label.GetSize() == source.GetSize()
    np.testing.assert_allclose(label.GetDirection(), source.GetDirection(), atol=1e-6)
    np.testing.assert_allclose(label.GetOrigin(), source.GetOrigin(), atol=1e-4)
    content = response.content[:start].decode(errors="replace")
    params = json.loads(content[content.index("{") : content.rindex("}") + 1])
    assert params["label_names"] == {"anomaly_low": 1, "anomaly_moderate": 2, "anomaly_high": 3}


def test_b_scans_keep_the_axes_of_their_file(
    app_folder: Path, own_maps: Callable[..., Path], tmp_path: Path
) -> None:
    from multiad_med.testing.cohorts import make_retinas
    from tests.label.conftest import serve

    studies = make_retinas(tmp_path) / "images"
    server = serve(app_folder, studies, tmp_path)
    own = own_maps(RETINA, studies)
    expected = nib.load(own / "s5_anomaly_map.nii.gz")
    response = server.ask(RETINA, "s5", "image", result_dtype="float32")
    heatmap = image_of(response, tmp_path / "map.nii.gz")
    assert heatmap.shape == nib.load(studies / "s5.nii.gz").shape
    np.testing.assert_array_equal(np.asarray(heatmap.dataobj), np.asarray(expected.dataobj))
    np.testing.assert_allclose(heatmap.affine, expected.affine, atol=1e-6)


def test_an_organs_mask_is_the_label_with_that_tag(
    app_folder: Path, own_maps: Callable[..., Path], tmp_path: Path
) -> None:
    from multiad_med.testing.cohorts import make_abdomens
    from tests.label.conftest import serve

    cohort = make_abdomens(tmp_path)
    server = serve(app_folder, cohort / "images", tmp_path)
    without = server.infer(LIVER, "s5")
    assert without.status_code == 422
    assert "no mask 'organ'" in without.json()["detail"]
    with (cohort / "organs" / "s5.nii.gz").open("rb") as mask:
        stored = server.client.put(
            "/datastore/label?image=s5&tag=organ", files={"label": ("s5.nii.gz", mask)}
        )
    assert stored.status_code == 200, stored.text
    expected = nib.load(own_maps(LIVER, cohort) / "images" / "s5_anomaly_map.nii.gz")
    response = server.ask(LIVER, "s5", "image", result_dtype="float32")
    values = np.asarray(image_of(response, tmp_path / "map.nii.gz").dataobj)
    np.testing.assert_array_equal(values, np.asarray(expected.dataobj))


def test_an_uploaded_file_is_judged_and_not_kept(server: Server, tmp_path: Path) -> None:
    before = server.client.get("/datastore/").json()
    with (server.studies / "a.nii.gz").open("rb") as file:
        response = server.client.post(
            f"/infer/{BRAIN}?output=json", data={"params": "{}"}, files={"file": ("a.nii.gz", file)}
        )
    assert response.status_code == 200, response.text
    kept = server.infer(BRAIN, "a").json()
    assert response.json()["anomaly_score"] == pytest.approx(kept["anomaly_score"], abs=1e-6)
    assert server.client.get("/datastore/").json() == before


def test_the_heatmap_and_the_score_are_kept_beside_the_study(
    server: Server, tmp_path: Path
) -> None:
    params = server.infer(BRAIN, "b", heatmap=True).json()
    assert params["heatmap"] == "heatmap"
    stored = image_of(
        server.client.get("/datastore/label?label=b&tag=heatmap"), tmp_path / "stored.nii.gz"
    )
    response = server.ask(BRAIN, "b", "image", result_dtype="float32")
    values = np.asarray(image_of(response, tmp_path / "map.nii.gz").dataobj)
    np.testing.assert_array_equal(np.asarray(stored.dataobj), values)
    about = server.client.get("/datastore/label/info?label=b&tag=heatmap").json()
    assert about["params"]["anomaly_score"] == params["anomaly_score"]
    info = server.client.get("/datastore/image/info?image=b").json()
    assert info["anomaly_scores"] == {BRAIN: params["anomaly_score"]}


def test_models_tell_their_labels_options_and_dimension(server: Server) -> None:
    info = server.client.get("/info/").json()
    assert set(info["models"]) == {BRAIN, LIVER, RETINA}
    assert info["labels"] == ["anomaly_low", "anomaly_moderate", "anomaly_high"]
    model = info["models"][BRAIN]
    assert model["dimension"] == 3
    options = {k: v for k, v in model["config"].items() if k.startswith(("threshold", "heatmap"))}
    assert options == {
        "threshold_low": 0.5,
        "threshold_moderate": 0.6,
        "threshold_high": 0.667,
        "heatmap": False,
    }
    infos = [i["segmentAttribute"] for i in model["label_info"]]
    assert [i["labelID"] for i in infos] == [1, 2, 3]
    assert [i["color"] for i in model["label_info"]] == [
        list(SEVERITY_COLOURS[b]) for b in SeverityLevel
    ]
    assert [i["recommendedDisplayRGBValue"] for i in infos] == [
        list(SEVERITY_COLOURS[b]) for b in SeverityLevel
    ]
    for attribute in infos:  # no lesion, no disease
        assert attribute["SegmentedPropertyTypeCodeSequence"]["CodeValue"] == "unusual-region"
        assert attribute["SegmentedPropertyCategoryCodeSequence"]["CodeValue"] == "309825002"
    assert set(info["strategies"]) == {"most_anomalous", "random", "first"}
    assert set(info["scoring"]) == {"anomaly"}
    assert set(info["trainers"]) == {BRAIN, LIVER, RETINA}
    assert info["train_stats"] is not None
