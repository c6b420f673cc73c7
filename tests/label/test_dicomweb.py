"""Studies on a PACS: Orthanc on loopback, where it is installed."""

from __future__ import annotations

import json
import re
from collections.abc import Callable, Iterator
from pathlib import Path

import nibabel as nib
import numpy as np
import pydicom
import pytest
from dicomweb_client import DICOMwebClient

from multiad_med.readers import LoadVolume
from multiad_med.testing.brains import write_nifti
from tests.dicom_files import save
from tests.label.conftest import BRAIN, LIVER, Server, serve
from tests.serving.pacs import SERVER, head_series, needs_orthanc

pytestmark = needs_orthanc

FIRST, SECOND, GAP = "1.2.3.71.1", "1.2.3.72.1", "1.2.3.73.1"


@pytest.fixture(scope="module")
def pacs() -> Iterator[str]:
    """An Orthanc with two series and one that misses a slice."""
    with SERVER.orthanc() as url:
        client = DICOMwebClient(url)
        client.store_instances(head_series("71", seed=1, patient="P71"))
        client.store_instances(head_series("72", seed=2, patient="P72"))
        gap = head_series("73", seed=3, patient="P73")
        client.store_instances(gap[:2] + gap[3:])
        yield url


@pytest.fixture(scope="module")
def cache(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Folder of the app's cache."""
    return tmp_path_factory.mktemp("cache")


@pytest.fixture
def server(pacs: str, app_folder: Path, cache: Path) -> Server:
    """The app with the series of :func:`pacs`."""
    return serve(app_folder, pacs, cache)


def test_series_of_the_models_modalities_are_listed(server: Server) -> None:
    assert server.client.get("/datastore/").json()["total"] == 3


def test_the_map_is_that_of_the_series(
    server: Server, own_maps: Callable[..., Path], tmp_path: Path
) -> None:
    save(head_series("71", seed=1), tmp_path / "in" / "one")
    own = own_maps(BRAIN, tmp_path / "in")
    (expected,) = own.rglob("*_anomaly_map.nii.gz")
    answer = server.ask(BRAIN, FIRST, "image", result_dtype="float32", heatmap=True)
    assert answer.status_code == 200, answer.text
    (tmp_path / "map.nii.gz").write_bytes(answer.content)
    values, reference = nib.load(tmp_path / "map.nii.gz"), nib.load(expected)
    np.testing.assert_allclose(
        np.asarray(values.dataobj), np.asarray(reference.dataobj), rtol=0, atol=1e-6
    )
    np.testing.assert_allclose(values.affine, reference.affine, atol=1e-5)
    stored = server.client.get(f"/datastore/label?label={FIRST}&tag=heatmap")
    assert stored.status_code == 200
    assert server.client.post("/activelearning/most_anomalous").json()["id"] == FIRST


def test_the_label_is_a_dicom_segmentation(server: Server, tmp_path: Path) -> None:
    first = server.infer(BRAIN, FIRST).json()
    infos = first["label_info"]
    assert infos
    known = server.client.get("/info/").json()["models"][BRAIN]["label_info"]
    answer = server.ask(BRAIN, FIRST, "dicom_seg", label_info=known)
    assert answer.status_code == 200, answer.text
    (tmp_path / "seg.dcm").write_bytes(answer.content)
    seg = pydicom.dcmread(tmp_path / "seg.dcm")
    assert seg.Modality == "SEG"
    assert seg.PatientID == "P71"
    assert [s.SegmentLabel for s in seg.SegmentSequence] == [i["name"] for i in infos]
    for segment in seg.SegmentSequence:
        assert segment.SegmentedPropertyTypeCodeSequence[0].CodeValue == "unusual-region"
        assert segment.SegmentedPropertyCategoryCodeSequence[0].CodeValue == "309825002"
    assert seg.ReferencedSeriesSequence[0].SeriesInstanceUID == FIRST
    empty = {"threshold_low": 0.997, "threshold_moderate": 0.998, "threshold_high": 0.999}
    refused = server.ask(BRAIN, FIRST, "dicom_seg", label_info=known, **empty)
    assert refused.status_code == 422
    assert "its label is empty" in refused.json()["detail"]
    response = server.ask(BRAIN, FIRST, "image")
    (tmp_path / "label.nii.gz").write_bytes(response.content)
    label = np.asarray(nib.load(tmp_path / "label.nii.gz").dataobj)
    marked = int(np.unpackbits(np.frombuffer(seg.PixelData, np.uint8), bitorder="little").sum())
    assert marked == np.count_nonzero(label)


def test_what_is_wrong_is_told(server: Server) -> None:
    wrong = server.infer(LIVER, FIRST)
    assert wrong.status_code == 422
    assert re.search(r"\bMR\b.*\bCT\b", wrong.json()["detail"])
    gap = server.infer(BRAIN, GAP)
    assert gap.status_code == 422
    assert "missing" in gap.json()["detail"].lower()
    assert server.infer(BRAIN, "1.2.3.4.5").status_code == 404
    for image in ("../../etc", "/etc/passwd", "1.2/../3"):
        assert server.infer(BRAIN, image).status_code == 400
        answer = server.client.get("/datastore/image", params={"image": image})
        assert answer.status_code == 400


def test_a_segmentation_of_multiad_serve_is_no_label(server: Server, pacs: str) -> None:
    before = server.client.get("/datastore/").json()["completed"]
    for number, maker, more in ((8, "Multi-AD Med", 0), (9, "A reader's station", 1)):
        seg = head_series("73", seed=1, patient="P73", slices=1)[0]
        seg.Modality, seg.ManufacturerModelName = "SEG", maker
        seg.SeriesInstanceUID = f"1.2.3.73.{number}"
        seg.SOPInstanceUID = f"1.2.3.73.{number}.1"
        seg.file_meta.MediaStorageSOPInstanceUID = seg.SOPInstanceUID
        source = pydicom.Dataset()
        source.SeriesInstanceUID = GAP
        seg.ReferencedSeriesSequence = [source]
        DICOMwebClient(pacs).store_instances([seg])
        assert server.client.get("/datastore/").json()["completed"] == before + more


def test_a_final_label_that_is_no_volume_is_refused(server: Server) -> None:
    answer = server.client.put(
        f"/datastore/label?image={FIRST}&tag=final", files={"label": ("x.nii.gz", b"text")}
    )
    assert answer.status_code == 422
    assert "The label" in answer.json()["detail"]


def label_of(server: Server, series: str, path: Path, *, marked: bool) -> Path:
    assert server.infer(BRAIN, series).status_code == 200
    info = server.client.get(f"/datastore/image/info?image={series}").json()
    source = LoadVolume()(info["path"])
    label = np.zeros(source.shape[1:], np.uint8)
    label[4:8, 4:8, 2] = marked
    return write_nifti(path, label, source.affine.numpy())


def test_final_labels_go_to_the_pacs_but_empty_ones(
    server: Server, pacs: str, tmp_path: Path
) -> None:
    client = DICOMwebClient(pacs)

    def segmentations() -> int:
        return len(client.search_for_series(search_filters={"Modality": "SEG"}))

    before = segmentations()
    params = {"label_info": [{"name": "lesion"}]}
    for series, marked in ((FIRST, True), (SECOND, False)):
        path = label_of(server, series, tmp_path / f"{series}.nii.gz", marked=marked)
        with path.open("rb") as file:
            answer = server.client.put(
                f"/datastore/label?image={series}&tag=final",
                data={"params": json.dumps(params)},
                files={"label": (path.name, file)},
            )
        assert answer.status_code == 200, answer.text
    assert segmentations() == before + 1
    info = server.client.get(f"/datastore/label/info?label={SECOND}&tag=normal")
    assert info.json()["name"] == f"{SECOND}.nii.gz"
    answer = server.client.post(f"/train/{BRAIN}?run_sync=true", json={"max_epochs": 1})
    assert answer.status_code == 422
    assert answer.json()["detail"].startswith("1 studies have")
