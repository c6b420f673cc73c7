"""Results in object storage: those of a folder, resumed, whole or not there."""

from __future__ import annotations

import logging
import re
import socket
from collections.abc import Iterator
from pathlib import Path
from typing import Any
from uuid import uuid4

import fsspec
import nibabel as nib
import numpy as np
import pytest
from fsspec.implementations.memory import MemoryFileSystem

from multiad_med.data import StudyError
from multiad_med.data.study_results import VIEWER, beside_map
from multiad_med.scale import predict_studies
from multiad_med.scale.cluster import LOCAL, ray_cluster
from multiad_med.scale.fetch import fetch_folder, results_folder
from multiad_med.scale.storage import ObjectStorage
from multiad_med.testing.cohorts import COHORTS, FAST, write_fake_model
from multiad_med.utils.errors import InputError
from tests.bundles import models
from tests.bundles.test_folder_inference import nifti_head
from tests.scale.test_stages import Staged, assert_same_results

pq = pytest.importorskip("pyarrow.parquet", reason="needs the extra scale")


@pytest.fixture
def address() -> str:
    """A new place in fsspec's memory."""
    return f"memory://{uuid4().hex}/maps"


def stored(address: str) -> dict[str, Any]:
    """When each file of a place was written, by its name."""
    files, root = fsspec.url_to_fs(address)
    found = files.find(root, detail=True)
    return {name.removeprefix(f"{root}/"): about["created"] for name, about in found.items()}


def storage_of(address: str) -> ObjectStorage:
    return ObjectStorage(address, results_folder(address))


def here(address: str) -> list[Path]:
    """Files that were left on this machine."""
    return [path for path in fetch_folder(address).rglob("*") if path.is_file()]


def test_results_are_those_of_a_folder_and_are_not_made_twice(
    model: Path, address: str, tmp_path: Path
) -> None:
    for name in ("clinic/a", "clinic/b", "c"):
        nifti_head(tmp_path / f"in/{name}.nii.gz", seed=ord(name[-1]))
    (tmp_path / "in/bad.nii.gz").write_bytes(b"no image")
    Staged(tmp_path / "in", model, tmp_path / "out").rows()
    rows = Staged(tmp_path / "in", model, address).rows()
    assert sorted(row["status"] for row in rows) == ["done", "done", "done", "failed"]
    assert not here(address)
    before = stored(address)
    files, root = fsspec.url_to_fs(address)
    files.get(root, str(tmp_path / "stored"), recursive=True)
    assert_same_results(tmp_path / "stored", tmp_path / "out")

    again = Staged(tmp_path / "in", model, address).rows()
    assert sorted(row["status"] for row in again) == ["failed", "skipped", "skipped", "skipped"]
    assert [row["score"] for row in again] == [row["score"] for row in rows]
    assert stored(address) == before
    assert not here(address)

    nifti_head(tmp_path / "in/c.nii.gz", seed=1)
    changed = Staged(tmp_path / "in", model, address).rows()
    assert [Path(r["image"]).name for r in changed if r["status"] == "done"] == ["c.nii.gz"]
    assert {name for name, when in stored(address).items() if before[name] != when} == {
        f"c_anomaly{end}" for end in (".json", "_map.nii.gz", "_mask.nii.gz")
    }


def test_what_a_killed_worker_left_on_its_disk_does_not_count(
    model: Path, address: str, tmp_path: Path
) -> None:
    nifti_head(tmp_path / "in/a.nii.gz")
    Staged(tmp_path / "in", model, address).rows()
    storage = storage_of(address)
    scores = storage.folder / "a_anomaly.json"
    storage.fetch(scores)
    storage.remove(scores)  # as if it had been killed before it sent them
    assert scores.is_file()
    (row,) = Staged(tmp_path / "in", model, address).rows()
    assert row["status"] == "done"
    assert "a_anomaly.json" in stored(address)


def test_a_study_whose_files_cannot_be_sent_failed_and_is_done_again(
    model: Path, address: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    for name in "ab":
        nifti_head(tmp_path / f"in/{name}.nii.gz", seed=ord(name))
    put = MemoryFileSystem.put_file

    def refusing(self: Any, source: str, target: str, **options: Any) -> None:
        if target.endswith("a_anomaly_map.nii.gz"):
            raise PermissionError("quota exceeded")
        put(self, source, target, **options)

    with monkeypatch.context() as patched:
        patched.setattr(MemoryFileSystem, "put_file", refusing)
        failed, done = Staged(tmp_path / "in", model, address).rows()
    assert (failed["status"], done["status"]) == ("failed", "done")
    assert failed["message"] == f"{address}/a_anomaly_map.nii.gz cannot be written: quota exceeded"
    assert failed["map"] is None
    assert "a_anomaly.json" not in stored(address)
    assert not here(address)
    again = Staged(tmp_path / "in", model, address).rows()
    assert [row["status"] for row in again] == ["done", "skipped"]


def test_a_storage_that_answers_nothing_is_the_reason_of_each_failure(
    model: Path, address: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    for name in "ab":
        nifti_head(tmp_path / f"in/{name}.nii.gz", seed=ord(name))
    staged = Staged(tmp_path / "in", model, address)

    def silent(self: Any, *paths: str, **options: Any) -> None:
        raise TimeoutError("no answer")

    for name in ("get_file", "put_file", "rm_file"):
        monkeypatch.setattr(MemoryFileSystem, name, silent)
    rows = staged.rows()
    assert [row["status"] for row in rows] == ["failed", "failed"]
    assert rows[0]["message"].endswith(f"{address}/a_anomaly.json cannot be had: no answer")


def test_images_are_stored_with_their_overlays(address: str, tmp_path: Path) -> None:
    model = write_fake_model("multiad_industrial", tmp_path / "model.pt")
    COHORTS["multiad_industrial"](tmp_path)
    rows = Staged(tmp_path / "cohort", model, address).rows()
    assert {row["status"] for row in rows} == {"done"}
    for row in rows:
        name = row["map"].removesuffix(".tiff")
        assert {row["map"], f"{name}_anomaly.json", f"{name}_anomaly.png"} <= set(stored(address))


def test_what_another_study_of_the_run_makes_here_is_not_cleared(
    model: Path, address: str, tmp_path: Path
) -> None:
    nifti_head(tmp_path / "in/a.nii.gz")
    nifti_head(tmp_path / "in/a.nii", seed=1)
    staged = Staged(tmp_path / "in", model, address)
    results = staged.run.part("results")
    first, second = (study.listed.item for study in staged.studies)
    results.expect([first, second])
    at_work = results.path(first["image"], "anomaly_map.nii.gz")
    at_work.parent.mkdir(parents=True)
    at_work.write_bytes(b"half")
    results.clear(second["image"])
    assert at_work.is_file()
    results.clear(first["image"])
    assert not at_work.exists()


def test_a_name_that_leaves_the_address_is_neither_fetched_nor_removed(
    address: str, tmp_path: Path
) -> None:
    storage = storage_of(address)
    outside = tmp_path / "mine_anomaly.png"
    outside.write_bytes(b"mine")
    with pytest.raises(StudyError, match="it is not below the address"):
        storage.fetch(storage.folder / ("../" * 9) / outside.relative_to("/"))
    assert outside.read_bytes() == b"mine"


def test_two_studies_of_one_name_of_results(model: Path, address: str, tmp_path: Path) -> None:
    nifti_head(tmp_path / "in/a.nii.gz")
    nifti_head(tmp_path / "in/a.nii", seed=1)
    rows = Staged(tmp_path / "in", model, address).rows()
    assert sorted(row["status"] for row in rows) == ["done", "failed"]
    assert "a_anomaly.json" in stored(address)
    # And one of another folder, whose results would have replaced these.
    nifti_head(tmp_path / "other/a.nii.gz", seed=2)
    before = stored(address)
    (row,) = Staged(tmp_path / "other", model, address).rows()
    assert f"which an earlier run wrote to {address}." in row["message"]
    assert stored(address) == before
    assert not here(address)


def test_an_address_that_cannot_be_written_to_is_refused(
    address: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    storage_of(address).check()
    assert not stored(address)
    files, root = fsspec.url_to_fs(address)
    files.pipe_file(f"{root}/.multiad-writable", b"")  # of a run that was killed
    storage_of(address).check()
    with pytest.raises(InputError, match=re.escape("nowhere://x: addresses of nowhere://")):
        storage_of("nowhere://x").check()

    def refusing(self: Any, path: str, value: bytes, **options: Any) -> None:
        raise PermissionError("no such bucket")

    with monkeypatch.context() as patched:
        patched.setattr(MemoryFileSystem, "pipe_file", refusing)
        with pytest.raises(InputError, match="cannot be written to: no such bucket"):
            storage_of(address).check()


def test_an_address_with_other_files_is_refused_unless_a_run_wrote_there(address: str) -> None:
    files, root = fsspec.url_to_fs(address)
    files.pipe_file(f"{root}/holiday.jpg", b"1")
    with pytest.raises(InputError, match=r"holds other files, such as holiday\.jpg"):
        storage_of(address).check()
    files.pipe_file(f"{root}/clinic/a_anomaly.json", b"{}")
    storage_of(address).check()
    files.rm_file(f"{root}/clinic/a_anomaly.json")
    files.pipe_file(f"{root}/summary.json", b"{}")
    storage_of(address).check()


@pytest.fixture
def bucket(monkeypatch: pytest.MonkeyPatch) -> Iterator[str]:
    """An empty bucket of a server that speaks S3."""
    s3fs = pytest.importorskip("s3fs", reason="s3fs is not installed")
    moto = pytest.importorskip("moto.server", reason="moto[server] is not installed")
    logging.getLogger("werkzeug").setLevel(logging.ERROR)
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    server = moto.ThreadedMotoServer(ip_address="127.0.0.1", port=port, verbose=False)
    server.start()
    for name, value in {
        "AWS_ENDPOINT_URL": f"http://127.0.0.1:{port}",
        "AWS_ACCESS_KEY_ID": "test",
        "AWS_SECRET_ACCESS_KEY": "test",
        "AWS_DEFAULT_REGION": "us-east-1",
    }.items():
        monkeypatch.setenv(name, value)
    s3fs.S3FileSystem.clear_instance_cache()
    s3fs.S3FileSystem().mkdir("archive")
    with pytest.raises(InputError, match="cannot be written to"):
        storage_of("s3://typo/maps").check()
    assert not s3fs.S3FileSystem().exists("typo")
    yield "s3://archive"
    server.stop()


def check_an_archive(place: str, model: Path, folder: Path) -> None:
    """Map three studies of a place, and one that is not there, into it by Ray, twice."""
    pytest.importorskip("ray", reason="needs the extra scale")
    files, root = fsspec.url_to_fs(place)
    files.makedirs(f"{root}/in", exist_ok=True)
    for number in range(3):
        image = nifti_head(folder / f"in/s{number}.nii.gz", seed=number)
        files.put_file(str(image), f"{root}/in/s{number}.nii.gz")
    plain = models.infer("multiad_brain_mri", folder / "in", model, folder / "plain")
    names = ["in/s0", "in/s1", "in/s2", "none"]
    table = "image\n" + "".join(f"{place}/{name}.nii.gz\n" for name in names)
    files.pipe_file(f"{root}/studies.csv", table.encode())

    def run() -> list[dict[str, Any]]:
        source, output = f"{place}/studies.csv", f"{place}/maps/"
        return predict_studies(source, model, output=output, actors=1, size=FAST["size"])

    with ray_cluster(LOCAL):
        rows, again = run(), run()
    assert [row["status"] for row in rows] == ["done", "done", "done", "failed"]
    assert f"{place}/none.nii.gz cannot be had" in rows[3]["message"]
    for row, expected in zip(rows, plain.values(), strict=False):
        assert row["score"] == pytest.approx(expected["score"], abs=1e-5)
        assert row["decision"] == expected["decision"]
    files.invalidate_cache()
    files.get(f"{root}/maps", str(folder / "maps"), recursive=True)
    for row in rows[:3]:
        mapped = folder / "maps" / row["map"]
        plain_map = folder / "plain" / mapped.name
        values, expected_values = (np.asarray(nib.load(p).dataobj) for p in (mapped, plain_map))
        np.testing.assert_allclose(values, expected_values, atol=1e-5)
        assert beside_map(folder / "maps" / row["map"], VIEWER).is_file()
    page = (folder / "maps/summary.html").read_text()
    assert page.count("data:image/jpeg") == 3
    assert "in/s0_anomaly_viewer.html" in page
    scores = pq.read_table(folder / "maps/scores").to_pylist()
    assert sorted(row["image"] for row in scores) == sorted(row["image"] for row in rows)
    assert not fetch_folder(f"{place}/maps").exists()

    assert [row["status"] for row in again] == ["skipped", "skipped", "skipped", "failed"]
    assert [row["score"] for row in again] == [row["score"] for row in rows]


def test_an_archive_in_storage_is_mapped_by_ray_into_storage(model: Path, tmp_path: Path) -> None:
    # What all processes of Ray reach without a server. It has folders, which are made.
    check_an_archive(f"local://{tmp_path}/archive", model, tmp_path / "here")


def test_an_archive_in_s3_is_mapped_by_ray_into_s3(
    bucket: str, model: Path, tmp_path: Path
) -> None:
    check_an_archive(bucket, model, tmp_path)
