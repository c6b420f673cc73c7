"""Reading, mapping and writing apart give what the bundle's own inference gives, study by study."""

from __future__ import annotations

import errno
import json
import os
from pathlib import Path
from typing import Any

import fsspec
import nibabel as nib
import numpy as np
import pytest
from PIL import Image

from multiad_med.inference import map_writers
from multiad_med.inference.predictor import StudyPredictor
from multiad_med.scale.cluster import Workers
from multiad_med.scale.fetch import fetch_folder
from multiad_med.scale.predict import mapping_stages, mark_repeats
from multiad_med.scale.sources import list_studies
from multiad_med.scale.stages import MapStudies, ReadStudies, StudyRun, WriteStudies
from multiad_med.scale.travelling_study import as_table
from multiad_med.testing.cohorts import COHORTS, FAST, write_fake_model
from multiad_med.utils.errors import InputError
from tests.bundles import models
from tests.bundles.test_folder_inference import nifti_head

pytest.importorskip("pyarrow", reason="needs the extra scale")

SETTINGS = {"size": FAST["size"]}


class Staged:
    """The stages of a source, one after the other in this process."""

    def __init__(self, source: object, model: Path, out: Path | str, **settings: Any) -> None:
        self.settings = SETTINGS | settings
        self.predictor = StudyPredictor(model, device="cpu", **self.settings)
        self.model = model
        listed = list_studies(str(source), self.predictor, output=out)
        self.run = StudyRun.of(self.predictor, source=listed.source, output=out)
        self.studies = self.run.travelling(listed.studies)
        mark_repeats(self.studies)

    def network(self) -> MapStudies:
        return MapStudies(**self.predictor.arguments, device="cpu")

    def rows(self, network: MapStudies | None = None) -> list[dict[str, Any]]:
        table = ReadStudies(self.run)(as_table(self.studies))
        table = (network or self.network())(table)
        return WriteStudies(self.run)(table).to_pylist()


def scores_of(folder: Path) -> dict[str, Any]:
    """The verdicts and scores of all studies of a folder."""
    found = {}
    for path in sorted(folder.rglob("*_anomaly.json")):
        content = json.loads(path.read_text())
        found[str(path.relative_to(folder))] = content
    return found


def assert_same_results(one: Path, two: Path) -> None:
    """Maps and scores to 1e-5, the same verdicts, hashes and settings, and the same files."""
    ours, theirs = scores_of(one), scores_of(two)
    assert ours.keys() == theirs.keys()
    assert ours
    for name, content in ours.items():
        other = theirs[name]
        assert content["volume_score"] == pytest.approx(other["volume_score"], abs=1e-5)
        for a, b in zip(content["slices"], other["slices"], strict=True):
            assert a["score"] == pytest.approx(b["score"], abs=1e-5)
            assert (a["slice"], a["flagged"]) == (b["slice"], b["flagged"])
        same = ("verdict", "volume_flagged", "model_sha256", "image_sha256", "settings", "image")
        assert {key: content[key] for key in same} == {key: other[key] for key in same}
    for path in [*one.rglob("*_map.nii.gz"), *one.rglob("*.tiff")]:
        other_map = two / path.relative_to(one)
        if path.suffix == ".tiff":
            a, b = (np.asarray(Image.open(p)) for p in (path, other_map))
        else:
            images = [nib.load(p) for p in (path, other_map)]
            np.testing.assert_allclose(images[0].affine, images[1].affine, atol=1e-6)
            a, b = (image.get_fdata() for image in images)
        np.testing.assert_allclose(a, b, atol=1e-5)


@pytest.mark.parametrize("bundle", ["multiad_brain_mri", "multiad_industrial"])
def test_results_are_those_of_the_bundles_inference(bundle: str, tmp_path: Path) -> None:
    COHORTS[bundle](tmp_path)
    model = write_fake_model(bundle, tmp_path / "model.pt")
    data = tmp_path / "cohort"
    models.infer(bundle, data, model, tmp_path / "plain")
    rows = Staged(data, model, tmp_path / "staged").rows()
    assert {row["status"] for row in rows} == {"done"}
    assert_same_results(tmp_path / "staged", tmp_path / "plain")
    row = rows[0]
    assert row["network_seconds"] > 0
    assert row["seconds"] >= row["read_seconds"] + row["network_seconds"]
    scores = json.loads(next((tmp_path / "staged").rglob("*_anomaly.json")).read_text())
    assert scores["model_sha256"] == row["model_sha256"]


@pytest.mark.slow
@pytest.mark.parametrize("bundle", ["multiad_liver_ct", "multiad_retina_oct", "multiad_generalist"])
def test_so_are_those_of_the_other_bundles(bundle: str, tmp_path: Path) -> None:
    test_results_are_those_of_the_bundles_inference(bundle, tmp_path)


def test_volumes_of_one_batch_may_differ_in_size_and_slices(model: Path, tmp_path: Path) -> None:
    nifti_head(tmp_path / "in/a.nii.gz")
    flat = nib.load(tmp_path / "in/a.nii.gz")
    nib.save(flat.slicer[:, :24, 1:5], tmp_path / "in/b.nii.gz")
    models.infer("multiad_brain_mri", tmp_path / "in", model, tmp_path / "plain")
    assert len(Staged(tmp_path / "in", model, tmp_path / "staged").rows()) == 2
    assert_same_results(tmp_path / "staged", tmp_path / "plain")


def archive(folder: Path, name: str, *, seed: int = 0, copies: int = 1) -> Path:
    """Put an image into fsspec's memory, and write a table of it."""
    image = nifti_head(folder / f"{name}.nii.gz", seed=seed)
    fsspec.filesystem("memory").put_file(str(image), f"/archive/{name}.nii.gz")
    table = folder / "table.csv"
    table.write_text("image\n" + f"memory://archive/{name}.nii.gz\n" * copies)
    return table


@pytest.mark.parametrize("stored", [False, True])
def test_a_study_that_cannot_be_fetched_now_keeps_its_results(
    stored: bool, model: Path, tmp_path: Path
) -> None:
    table = archive(tmp_path, "kept")
    out: Path | str = f"memory://kept-{tmp_path.name}/maps" if stored else tmp_path / "out"
    assert [row["status"] for row in Staged(table, model, out).rows()] == ["done"]
    memory = fsspec.filesystem("memory")
    memory.mv("/archive/kept.nii.gz", "/archive/away.nii.gz")
    (failed,) = Staged(table, model, out).rows()
    assert (failed["status"], failed["image"]) == ("failed", "memory://archive/kept.nii.gz")
    memory.mv("/archive/away.nii.gz", "/archive/kept.nii.gz")
    assert [row["status"] for row in Staged(table, model, out).rows()] == ["skipped"]


def test_the_same_image_twice_is_one_result_and_a_failed_row(model: Path, tmp_path: Path) -> None:
    done, twice = Staged(archive(tmp_path, "two", copies=2), model, tmp_path / "out").rows()
    assert (done["status"], twice["status"]) == ("done", "failed")
    assert (
        twice["message"] == "memory://archive/two.nii.gz: the same image as study 1. List it once."
    )
    assert len(scores_of(tmp_path / "out")) == 1


def test_a_row_of_a_repeated_image_leaves_alone_what_is_being_written(
    model: Path, tmp_path: Path
) -> None:
    address = f"memory://{tmp_path.name}/maps"
    staged = Staged(archive(tmp_path, "two", copies=2), model, address)
    mapped = staged.network()(ReadStudies(staged.run)(as_table(staged.studies)))
    image = staged.studies[0].listed.item["image"]
    half = staged.run.part("results").path(image, "anomaly_map.nii.gz")
    half.parent.mkdir(parents=True, exist_ok=True)
    half.write_bytes(b"of the first, not sent yet")
    (row,) = WriteStudies(staged.run)(mapped.slice(1)).to_pylist()
    assert row["status"] == "failed"
    assert half.is_file()


def test_results_name_the_address_wherever_the_copy_was(
    model: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    rows = []
    for seed, job in enumerate(("job1", "job2")):  # the image changes too, so that it is done again
        (tmp_path / job).mkdir()
        monkeypatch.setattr("tempfile.tempdir", str(tmp_path / job))
        table = archive(tmp_path, "a", seed=seed)
        rows += Staged(table, model, tmp_path / "out").rows()
    assert [row["status"] for row in rows] == ["done", "done"]
    (scores,) = scores_of(tmp_path / "out").values()
    assert scores["image"] == rows[0]["image"] == "memory://archive/a.nii.gz"


def test_a_worker_uses_the_commands_folder_whatever_its_own_tmpdir_is(
    model: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    nifti_head(tmp_path / "in/a.nii.gz")
    staged = Staged(tmp_path / "in", model, f"memory://{tmp_path.name}/maps")
    (tmp_path / "worker").mkdir()
    monkeypatch.setattr("tempfile.tempdir", str(tmp_path / "worker"))
    assert [row["status"] for row in staged.rows()] == ["done"]


def test_an_image_that_cannot_be_fetched_again_for_its_overlay_is_one_failed_row(
    tmp_path: Path,
) -> None:
    model = write_fake_model("multiad_industrial", tmp_path / "model.pt")
    COHORTS["multiad_industrial"](tmp_path)
    memory = fsspec.filesystem("memory")
    for number, image in enumerate(sorted((tmp_path / "cohort").rglob("test/**/*.png"))[:2]):
        memory.put_file(str(image), f"/line/{number}.png")
    table = tmp_path / "table.csv"
    table.write_text("image\nmemory://line/0.png\nmemory://line/1.png\n")
    staged = Staged(table, model, tmp_path / "out")
    mapped = staged.network()(ReadStudies(staged.run)(as_table(staged.studies)))
    memory.rm("/line/0.png")
    failed, done = WriteStudies(staged.run)(mapped).to_pylist()
    assert (failed["status"], done["status"]) == ("failed", "done")
    assert failed["message"].startswith("memory://line/0.png cannot be had")


def test_a_bad_study_is_a_row_with_its_reason(model: Path, tmp_path: Path) -> None:
    good = nifti_head(tmp_path / "in/good.nii.gz")
    (tmp_path / "in/bad.nii.gz").write_bytes(good.read_bytes()[:300])
    bad, done = Staged(tmp_path / "in", model, tmp_path / "out").rows()
    assert (bad["status"], done["status"]) == ("failed", "done")
    assert bad["message"].startswith(f"{tmp_path}/in/bad.nii.gz: ")
    assert bad["score"] is None
    assert not list((tmp_path / "out").glob("bad*"))


def test_a_full_disk_fails_the_study_alone_which_is_done_once_there_is_room(
    model: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    for name in "ab":
        nifti_head(tmp_path / f"in/{name}.nii.gz", seed=ord(name))
    out, save = tmp_path / "out", map_writers.save_nifti

    def full(image: Any, path: Path) -> None:
        if Path(path).name == "a_anomaly_mask.nii.gz":
            Path(path).write_bytes(b"half")
            raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC), str(path))
        save(image, path)

    with monkeypatch.context() as patched:
        patched.setattr(map_writers, "save_nifti", full)
        lost, done = Staged(tmp_path / "in", model, out).rows()
    assert (lost["status"], done["status"]) == ("failed", "done")
    assert "No space left on device" in lost["message"]
    assert not list(out.rglob("a_*"))
    assert not list(out.rglob(".partial*"))
    again = Staged(tmp_path / "in", model, out).rows()
    assert [row["status"] for row in again] == ["done", "skipped"]


def test_what_the_network_refuses_fails_alone(model: Path, tmp_path: Path) -> None:
    for name in "ab":
        nifti_head(tmp_path / f"in/{name}.nii.gz", seed=ord(name))
    staged = Staged(tmp_path / "in", model, tmp_path / "out")
    network = staged.network()
    inferer, calls = network.inferer, []

    def refusing(inputs: Any, net: Any) -> Any:
        calls.append(inputs.shape[-1])
        if len(calls) < 3:  # both together, then the first
            raise RuntimeError("no such memory")
        return inferer(inputs, net)

    network.inferer = refusing
    first, second = staged.rows(network)
    assert (first["status"], second["status"]) == ("failed", "done")
    assert "no such memory" in first["message"]
    assert calls[0] == calls[1] + calls[2]


def test_what_is_done_is_not_done_again(model: Path, tmp_path: Path) -> None:
    image = nifti_head(tmp_path / "in/a.nii.gz")
    out = tmp_path / "out"
    (first,) = Staged(tmp_path / "in", model, out).rows()
    made = (out / "a_anomaly_map.nii.gz").stat().st_mtime_ns
    (again,) = Staged(tmp_path / "in", model, out).rows()
    assert (first["status"], again["status"]) == ("done", "skipped")
    assert again["score"] == first["score"]
    assert (out / "a_anomaly_map.nii.gz").stat().st_mtime_ns == made
    nifti_head(image, seed=3)
    (changed,) = Staged(tmp_path / "in", model, out).rows()
    assert changed["status"] == "done"


def test_two_studies_of_one_name_of_results(model: Path, tmp_path: Path) -> None:
    nifti_head(tmp_path / "in/a.nii.gz")
    nifti_head(tmp_path / "in/a.nii", seed=1)
    rows = Staged(tmp_path / "in", model, tmp_path / "out").rows()
    assert sorted(row["status"] for row in rows) == ["done", "failed"]
    assert any("its results would overwrite those of" in row["message"] for row in rows)
    assert (tmp_path / "out/a_anomaly_map.nii.gz").is_file()


def test_studies_behind_addresses_are_fetched_and_not_kept(model: Path, tmp_path: Path) -> None:
    image = nifti_head(tmp_path / "a.nii.gz")
    memory = fsspec.filesystem("memory")
    memory.pipe("/archive/x/a.nii.gz", image.read_bytes())
    table = tmp_path / "table.jsonl"
    rows = [{"image": f"memory://archive/x/{name}.nii.gz", "id": name} for name in ("a", "none")]
    table.write_text("\n".join(json.dumps(row) for row in rows))
    out = tmp_path / "out"
    done, missing = Staged(table, model, out).rows()
    assert (done["id"], done["image"], done["status"]) == ("a", rows[0]["image"], "done")
    assert done["map"] == "memory/archive/x/a_anomaly_map.nii.gz"
    assert (out / done["map"]).is_file()
    assert missing["status"] == "failed"
    assert f"{rows[1]['image']} cannot be had: " in missing["message"]
    assert not [path for path in fetch_folder(out).rglob("*") if path.is_file()]
    assert (
        fetch_folder(out).stat().st_mode & 0o077 == 0
    )  # of patients, and of nobody else's business
    assert Staged(table, model, out).rows()[0]["status"] == "skipped"


def test_a_runtime_of_processors_is_refused_where_the_cluster_gives_gpus(
    model: Path, tmp_path: Path
) -> None:
    pytest.importorskip("openvino", reason="the extra `export` is not installed")
    predictor = StudyPredictor(model, device="cpu", runtime="openvino", size=64)
    run = StudyRun.of(predictor, source=tmp_path, output=tmp_path)
    with pytest.raises(InputError, match="--runtime openvino: it runs on processors"):
        mapping_stages(run, Workers(count=1, gpus=1), predictor, count=1)
    assert mapping_stages(run, Workers(count=1, gpus=0), predictor, count=1).actors == 1


def test_an_image_behind_an_address_has_its_overlay(tmp_path: Path) -> None:
    model = write_fake_model("multiad_industrial", tmp_path / "model.pt")
    Image.fromarray(np.full((40, 40, 3), 90, np.uint8)).save(tmp_path / "a.png")
    fsspec.filesystem("memory").pipe("/line/a.png", (tmp_path / "a.png").read_bytes())
    (tmp_path / "table.csv").write_text("image\nmemory://line/a.png\n")
    (row,) = Staged(tmp_path / "table.csv", model, tmp_path / "out").rows()
    assert row["status"] == "done", row["message"]
    assert (tmp_path / "out/memory/line/a_anomaly.png").is_file()
