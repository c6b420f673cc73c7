"""The datastore, training on normal studies, active learning, scoring, batches."""

from __future__ import annotations

import re
import shutil
from pathlib import Path

import nibabel as nib
import numpy as np
import pytest
import torch

from multiad_med.testing.brains import head, write_nifti
from tests.label.conftest import BRAIN, LIVER, Server, make_app, make_heads, serve


@pytest.fixture
def own(app_folder: Path, tmp_path: Path) -> Server:
    """The app with studies that a test may change."""
    return serve(app_folder, make_heads(tmp_path / "studies"), tmp_path)


def submit(server: Server, study: str, *, marked: bool) -> None:
    """Send a final label, empty unless something is marked."""
    source = nib.load(server.studies / f"{study}.nii.gz")
    label = np.zeros(source.shape, np.uint8)
    label[0, 0, 0] = marked
    path = write_nifti(server.studies.parent / f"label-{study}.nii.gz", label, source.affine)
    with path.open("rb") as file:
        answer = server.client.put(
            f"/datastore/label?image={study}", files={"label": (path.name, file)}
        )
    assert answer.status_code == 200, answer.text


def next_study(server: Server, **params: str) -> dict[str, object]:
    answer = server.client.post("/activelearning/most_anomalous", json=params)
    assert answer.status_code == 200, answer.text
    return answer.json()


def test_the_datastore_lists_studies_and_labels(own: Server) -> None:
    assert own.client.get("/datastore/").json() == {"total": 4, "completed": 0, "label_tags": {}}
    submit(own, "a", marked=True)
    assert own.client.get("/datastore/").json() == {
        "total": 4,
        "completed": 1,
        "label_tags": {"final": 1},
    }
    objects = own.client.get("/datastore/?output=all").json()["objects"]
    assert set(objects) == {"a", "b", "oblique", "permuted"}


def test_the_next_study_is_the_unlabelled_one_of_the_highest_score(own: Server) -> None:
    assert next_study(own)["id"] == "a"  # none has a score
    scores = {s: own.infer(BRAIN, s).json()["anomaly_score"] for s in ("b", "oblique", "permuted")}
    ranking = sorted(scores, key=lambda s: -scores[s])
    found = next_study(own)
    assert found["id"] == ranking[0]
    assert found["anomaly_score"] == scores[ranking[0]]
    assert Path(str(found["path"])) == own.studies / f"{ranking[0]}.nii.gz"
    assert next_study(own, model=BRAIN)["id"] == ranking[0]
    assert next_study(own, model=LIVER)["id"] == "a"  # has no scores
    submit(own, ranking[0], marked=True)
    assert next_study(own)["id"] == ranking[1]
    for study in ("a", "b", "oblique", "permuted"):
        submit(own, study, marked=False)
    assert next_study(own) == {}


def test_scoring_scores_what_has_no_score_yet(own: Server) -> None:
    score = own.infer(BRAIN, "a").json()["anomaly_score"]
    answer = own.client.post("/scoring/anomaly?run_sync=true", json={"model": BRAIN})
    assert answer.status_code == 200, answer.text
    assert set(answer.json()) == {"b", "oblique", "permuted"}
    info = own.client.get("/datastore/image/info?image=a").json()
    assert info["anomaly_scores"] == {BRAIN: score}
    unnamed = own.client.post("/scoring/anomaly?run_sync=true", json={})
    assert unnamed.status_code == 400
    assert BRAIN in unnamed.json()["detail"]


def test_a_bad_study_stops_no_batch(app_folder: Path, tmp_path: Path) -> None:
    studies = make_heads(tmp_path / "studies")
    (studies / "bad.nii.gz").write_bytes(b"no image")
    server = serve(app_folder, studies, tmp_path)
    answer = server.client.post(
        f"/batch/infer/{BRAIN}?run_sync=true",
        json={"device": "cpu", "multi_gpu": True, "max_workers": 1, "heatmap": True},
    )
    assert answer.status_code == 200, answer.text
    result = answer.json()
    assert "bad.nii.gz" in result.pop("bad")["error"]
    assert set(result) == {"a", "b", "oblique", "permuted"}
    for study, found in result.items():
        label = nib.load(studies / "labels" / "original" / f"{study}.nii.gz")
        assert label.shape == nib.load(studies / f"{study}.nii.gz").shape
        assert np.asarray(label.dataobj).any()
        assert 0 < found["params"]["anomaly_score"] < 1
    tags = server.client.get("/datastore/").json()["label_tags"]
    assert tags == {"original": 4, "heatmap": 4}


def test_two_workers_do_not_mix_requests(own: Server) -> None:
    alone = {s: own.infer(BRAIN, s).json()["anomaly_score"] for s in ("a", "b", "oblique")}
    for _ in range(3):
        answer = own.client.post(
            f"/batch/infer/{BRAIN}?run_sync=true", json={"device": "cpu", "max_workers": 2}
        )
        together = {s: r["params"]["anomaly_score"] for s, r in answer.json().items()}
        assert {s: together[s] for s in alone} == pytest.approx(alone, abs=1e-6)


def test_a_final_label_that_is_no_volume_is_refused(own: Server) -> None:
    file = {"label": ("x.nii.gz", b"text")}
    answer = own.client.put("/datastore/label?image=a", files=file)
    assert answer.status_code == 422
    assert "The label cannot be read" in answer.json()["detail"]
    assert own.client.get("/datastore/").json()["completed"] == 0


def test_training_without_normal_studies_is_refused(own: Server) -> None:
    submit(own, "a", marked=True)
    submit(own, "b", marked=False)
    answer = own.client.post(f"/train/{BRAIN}?run_sync=true", json={"max_epochs": 1})
    assert answer.status_code == 422
    assert re.search(r"\b1 studies\b.*label.*empty", answer.json()["detail"])


def test_training_takes_normal_studies_and_its_model_is_served(tmp_path: Path) -> None:
    app = make_app(tmp_path / "app", BRAIN)
    studies = tmp_path / "studies"
    affine = np.diag([4.0, 4.0, 8.0, 1.0])
    for index, name in enumerate(["n0", "n1", "n2", "ill"]):
        volume = head(np.random.default_rng(index), (32, 36, 8))
        write_nifti(studies / f"{name}.nii.gz", volume, affine)
    server = serve(app, studies, tmp_path)
    for name in ("n0", "n1", "n2"):
        submit(server, name, marked=False)
    submit(server, "ill", marked=True)
    before = server.infer(BRAIN, "ill").json()
    models = app / "model" / BRAIN / "models"
    earlier = shutil.copy(models / "model.pt", tmp_path / "earlier.pt")
    for count in (1, 2):  # a second one is a training of its own
        answer = server.client.post(
            f"/train/{BRAIN}?run_sync=true", json={"max_epochs": count, "device": "cpu"}
        )
        assert answer.status_code == 200, answer.text
        assert answer.json() == {"model": "model.pt", "studies": 3}
        if count == 1:
            assert (models / "previous.pt").read_bytes() == Path(earlier).read_bytes()
    state = torch.load(models / "model.pt", weights_only=True)
    assert bool(state["calibrated"])
    after = server.infer(BRAIN, "ill").json()
    assert after["anomaly_score"] != before["anomaly_score"]
    assert after["thresholds"]["pixel_false_positive_rate"] == pytest.approx(0.001)
    chosen = server.infer(BRAIN, "ill", model_filename="previous.pt").json()
    assert chosen["anomaly_score"] != after["anomaly_score"]
