"""What a request gets wrong, or tries."""

from __future__ import annotations

import errno
import json
import re
import tempfile
from pathlib import Path

import numpy as np
import pytest

from multiad_med.testing.brains import head, write_nifti
from tests.dicom_files import ct_slices, dicom_object, save
from tests.label.conftest import BRAIN, LIVER, Server, serve


@pytest.mark.parametrize(
    ("method", "path"),
    [
        ("post", "/infer/unknown?image=a"),
        ("post", "/train/unknown"),
        ("post", "/batch/infer/unknown"),
        ("post", "/activelearning/unknown"),
        ("post", "/scoring/unknown?run_sync=true"),
        ("post", f"/infer/{BRAIN}?image=unknown"),
        ("get", "/datastore/image?image=unknown"),
        ("get", "/datastore/label?label=unknown&tag=final"),
        ("get", "/model/unknown"),
    ],
)
def test_what_is_unknown_is_not_found(server: Server, method: str, path: str) -> None:
    answer = getattr(server.client, method)(path)
    assert answer.status_code == 404, answer.text
    if "infer/unknown" in path or "train" in path:
        assert BRAIN in answer.json()["detail"]


@pytest.mark.parametrize(
    "params",
    [
        {"threshold_low": 0.8},
        {"threshold_high": "much"},
        {"result_dtype": "int16"},
        {"result_extension": "/../../evil.nii.gz"},
        {"heatmap": "yes"},
        {"device": "$__import__('os').abort()"},
        {"model_filename": "../../../model.pt"},
        {"label_tag": "../../elsewhere", "save_label": True},
    ],
    ids=str,
)
def test_a_wrong_option_is_told(server: Server, params: dict[str, object]) -> None:
    answer = server.infer(BRAIN, "a", **params)
    assert answer.status_code == 400, answer.text
    assert answer.json()["detail"]


SECRETS = ["/etc/passwd", "../../../../../../etc/passwd", "..", ".", "a/../b", "a.nii.gz"]


@pytest.mark.parametrize("image", SECRETS)
def test_no_image_is_a_path(server: Server, image: str) -> None:
    for answer in (
        server.infer(BRAIN, image),
        server.infer(BRAIN, "a", image=image),
        server.client.get("/datastore/image", params={"image": image}),
        server.client.get("/datastore/label", params={"label": image, "tag": "final"}),
    ):
        assert answer.status_code in (400, 404), (answer.status_code, answer.text)
        assert "root:" not in answer.text


def test_files_elsewhere_are_not_read_as_images(server: Server, tmp_path: Path) -> None:
    volume = head(np.random.default_rng(0), (32, 36, 8))
    secret = write_nifti(tmp_path / "secret.nii.gz", volume)
    named = Path(tempfile.gettempdir()) / "not-an-upload.nii.gz"
    named.write_bytes(secret.read_bytes())
    try:
        for path in (secret, named):
            assert server.infer(BRAIN, str(path)).status_code == 404
            assert server.infer(BRAIN, "a", image=str(path)).status_code == 404
    finally:
        named.unlink()
    # Nor as a mask: the liver's study has none.
    answer = server.infer(LIVER, "a", organ=str(secret))
    assert answer.status_code == 422
    assert "organ" in answer.json()["detail"]


def test_names_of_uploads_do_not_leave_the_folder(server: Server) -> None:
    content = {"file": ("x.nii.gz", b"x")}
    answer = server.client.put("/datastore/image?image=../../evil", files=content)
    assert answer.status_code == 400
    for query in ("image=a&tag=../../evil", "image=../a&tag=final"):
        label = {"label": ("x.nii.gz", b"x")}
        assert server.client.put(f"/datastore/label?{query}", files=label).status_code == 400
    assert not list(server.studies.parent.rglob("*evil*"))
    answer = server.client.post(f"/infer/{BRAIN}?session_id=../../etc", data={"params": "{}"})
    assert answer.status_code == 400


def test_training_options_are_not_run_as_code(server: Server, tmp_path: Path) -> None:
    code = f"$__import__('pathlib').Path({str(tmp_path / 'ran')!r}).touch()"
    for options in (
        {"max_epochs": code},
        {"val_split": code},
        {"device": f"cpu') or {code} or ('"},
    ):
        answer = server.client.post(f"/train/{BRAIN}?run_sync=true", json=options)
        assert answer.status_code == 400, answer.text
    assert not (tmp_path / "ran").exists()


def upload(server: Server, model: str, path: Path) -> tuple[int, str]:
    with path.open("rb") as file:
        answer = server.client.post(
            f"/infer/{model}?output=json", data={"params": "{}"}, files={"file": (path.name, file)}
        )
    return answer.status_code, str(answer.json().get("detail"))


def test_studies_that_cannot_be_judged_say_why(
    app_folder: Path, server: Server, tmp_path: Path
) -> None:
    volume = np.zeros((1, 32, 36), np.int16)
    volume[0, 4:20, 4:20] = 700
    save(ct_slices(volume), tmp_path / "ct")
    status, detail = upload(server, BRAIN, tmp_path / "ct" / "im000.dcm")
    assert status == 422
    assert re.search(r"\bCT\b.*\bMR\b", detail)
    without = dicom_object(modality="MR", Rows=8, Columns=8, PixelSpacing=[1, 1])
    save([without], tmp_path / "empty")
    status, detail = upload(server, BRAIN, tmp_path / "empty" / "im000.dcm")
    assert status == 422
    assert "pixel" in detail.lower()
    studies = tmp_path / "studies"
    write_nifti(studies / "four.nii.gz", np.zeros((4, 4, 4, 2), np.int16))
    write_nifti(studies / "flat.nii.gz", np.ones((4, 4, 4), np.int16))
    (studies / "text.nii.gz").write_text("text")
    broken = serve(app_folder, studies, tmp_path)
    for study, reason in {"four": "channel", "flat": "shows nothing", "text": "truncated"}.items():
        answer = broken.infer(BRAIN, study)
        assert answer.status_code == 422, answer.text
        assert reason in answer.json()["detail"]


@pytest.mark.parametrize(
    "error",
    [TypeError("a bug"), MemoryError(), PermissionError(errno.EACCES, "Permission denied", "x")],
    ids=repr,
)
def test_a_fault_of_the_program_or_its_host_is_no_fault_of_the_client_and_is_logged(
    server: Server,
    monkeypatch: pytest.MonkeyPatch,
    caplog: pytest.LogCaptureFixture,
    error: Exception,
) -> None:
    def broken(*_: object, **__: object) -> None:
        raise error

    for place in (
        "multiad_med.detector.AnomalyDetector.predict",  # around the study's own barrier
        "multiad_med.networks.MultiAD.forward",  # inside it
    ):
        with monkeypatch.context() as patched, caplog.at_level("ERROR"):
            patched.setattr(place, broken)
            answer = server.infer(BRAIN, "a")
        assert answer.status_code == 500, answer.text
        detail = answer.json()["detail"]
        assert "a" in detail
        assert str(error) in detail
        assert any(detail in r.getMessage() and r.exc_info for r in caplog.records)
        caplog.clear()
    assert server.infer(BRAIN, "a").status_code == 200


def test_dicom_seg_of_a_folder_of_files_is_refused(server: Server) -> None:
    answer = server.ask(BRAIN, "a", "dicom_seg", label_info=[])
    assert answer.status_code == 422
    assert "DICOMweb" in answer.json()["detail"]


@pytest.mark.parametrize("params", ["low=0.5", "[1]", '"heatmap"'])
def test_params_that_are_no_json_object_are_told(server: Server, params: str) -> None:
    content = {"params": params}
    for answer in (
        server.client.post(f"/infer/{BRAIN}?image=a", data=content),
        server.client.put(
            "/datastore/label?image=a", data=content, files={"label": ("a.nii.gz", b"")}
        ),
        server.client.put(
            "/datastore/image?image=new", data=content, files={"file": ("a.nii", b"")}
        ),
    ):
        assert answer.status_code == 400, answer.text
        assert "params must be a JSON object" in answer.json()["detail"]
    assert server.client.get("/datastore/").json()["total"] == 4


def test_a_request_for_nothing_is_told(server: Server) -> None:
    answer = server.client.post(f"/infer/{BRAIN}")
    assert answer.status_code == 400
    assert "Name a study" in answer.json()["detail"]


def test_a_model_of_another_bundle_is_named(app_folder: Path, tmp_path: Path) -> None:
    import shutil

    import torch

    app = shutil.copytree(app_folder, tmp_path / "app")
    models = app / "model" / BRAIN / "models"
    server = serve(app, tmp_path / "studies", tmp_path)
    write_nifti(tmp_path / "studies" / "a.nii.gz", head(np.random.default_rng(0)), np.eye(4))
    server = serve(app, tmp_path / "studies", tmp_path)
    torch.save({"weight": torch.zeros(1)}, models / "other.pt")
    answer = server.infer(BRAIN, "a", model_filename="other.pt")
    assert answer.status_code == 422
    assert "other.pt" in answer.json()["detail"]
    state = torch.load(models / "model.pt", weights_only=True)
    state["calibrated"].fill_(False)
    torch.save(state, models / "unfinished.pt")
    answer = server.infer(BRAIN, "a", model_filename="unfinished.pt")
    assert "not calibrated" in json.dumps(answer.json())
