"""Where results go: one name per study, beside no other's, and none but its own model's."""

from __future__ import annotations

import json
from pathlib import Path
from types import SimpleNamespace

import pytest
import torch
from torch import nn

from multiad_med.data import StudyDataset, StudyResults, file_sha256, state_sha256
from multiad_med.data.study_dataset import READING


@pytest.fixture
def network() -> nn.Module:
    return nn.Linear(2, 1)


@pytest.mark.parametrize(
    ("image", "expected"),
    [
        ("in/a.nii.gz", "out/a_end"),
        ("in/p1/ses/T1.NII", "out/p1/ses/T1_end"),
        ("in/1.2.840.113", "out/1.2.840.113_end"),  # a folder: no suffix is lost
        ("in/eye.npy", "out/eye_end"),
        ("in/series/IM0001", "out/series/IM0001_end"),
        ("in/eye/scans/1.png", "out/eye/scans/1_end"),
        ("in", "out/in_end"),
        ("elsewhere/b.nii", "out/elsewhere/b_end"),  # of a datalist: no way out of the folder
    ],
)
def test_results_lie_as_the_images_do(
    tmp_path: Path, network: nn.Module, image: str, expected: str
) -> None:
    (tmp_path / "in").mkdir()
    results = StudyResults(tmp_path / "out", source=tmp_path / "in", network=network)
    assert results.path(tmp_path / image, "end") == tmp_path / expected


def test_a_datalists_folder_is_the_source(tmp_path: Path, network: nn.Module) -> None:
    (tmp_path / "list.json").write_text("{}")
    results = StudyResults("out", source=tmp_path / "list.json", network=network)
    assert results.path(tmp_path / "images/a.nii", "end") == Path("out/images/a_end")


def test_relative_and_absolute_paths_are_the_same(
    tmp_path: Path, network: nn.Module, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    results = StudyResults("out", source="in", network=network)
    assert results.path("in/a.nii", "end") == results.path(tmp_path / "in/a.nii", "end")


def finish(results: StudyResults, image: Path) -> None:
    path = results.path(image, "anomaly.json")
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(json.dumps({"image": str(image), **results.provenance(image)}))


def test_begin_tells_what_is_finished_and_clears_what_is_not(
    tmp_path: Path, network: nn.Module
) -> None:
    image = tmp_path / "in/a.npy"
    image.parent.mkdir()
    image.write_bytes(b"one")
    item = {"image": str(image)}

    def results(**settings: object) -> StudyResults:
        return StudyResults(
            tmp_path / "out", source=image.parent, network=network, settings=settings
        )

    first = results(size=64)
    assert first.begin(item)
    finish(first, image)
    scores = json.loads((tmp_path / "out/a_anomaly.json").read_text())
    assert scores["image_sha256"] == file_sha256(image)
    assert scores["model_sha256"] == state_sha256(network)
    assert not results(size=64).begin(item)
    stale = tmp_path / "out/a_anomaly_map.nii.gz"
    stale.write_bytes(b"of the other size")
    assert results(size=32).begin(item)
    assert not stale.exists()
    assert list((tmp_path / "out").iterdir()) == []


def test_results_of_another_run_time_are_made_again(tmp_path: Path, network: nn.Module) -> None:
    image = tmp_path / "in/a.npy"
    image.parent.mkdir()
    image.write_bytes(b"one")
    item = {"image": str(image)}

    def results(name: str | None) -> StudyResults:
        runtime = None if name is None else SimpleNamespace(name=name)
        return StudyResults(tmp_path / "out", source=image.parent, network=network, runtime=runtime)

    fast = results("openvino")
    assert fast.begin(item)
    fast.runtime.name = "onnxruntime"  # which was taken when the first batch came
    finish(fast, image)
    path = tmp_path / "out/a_anomaly.json"
    assert json.loads(path.read_text())["settings"] == {"runtime": "onnxruntime"}
    assert not results("onnxruntime").begin(item)
    assert results("torch").begin(item)
    finish(results("torch"), image)
    old = json.loads(path.read_text())
    del old["settings"]["runtime"]  # of a version that knew PyTorch alone
    path.write_text(json.dumps(old))
    assert not results("torch").begin(item)
    assert not results(None).begin(item)
    assert results("openvino").begin(item)


@pytest.mark.parametrize("content", ["", "[1]", '{"image_sha256": "x"', "null"])
def test_unreadable_scores_are_none(tmp_path: Path, network: nn.Module, content: str) -> None:
    (tmp_path / "a.npy").write_bytes(b"x")
    (tmp_path / "out").mkdir()
    (tmp_path / "out/a_anomaly.json").write_text(content)
    results = StudyResults(tmp_path / "out", source=tmp_path, network=network)
    assert results.scores(tmp_path / "a.npy") == {}
    assert results.begin({"image": str(tmp_path / "a.npy")})


def test_another_studys_results_are_never_removed(tmp_path: Path, network: nn.Module) -> None:
    for name in ("a.npy", "a.nii"):
        (tmp_path / name).write_bytes(name.encode())
    results = StudyResults(tmp_path / "out", source=tmp_path, network=network)
    items = [{"image": str(tmp_path / name)} for name in ("a.npy", "a.nii")]
    assert results.begin(items[0])
    finish(results, tmp_path / "a.npy")
    with pytest.raises(ValueError, match=r"a\.nii: its results would overwrite those of .*a\.npy"):
        results.begin(items[1])
    results.discard(items[1])
    assert (tmp_path / "out/a_anomaly.json").is_file()


def test_a_study_whose_files_cannot_be_read_now_keeps_its_results(
    tmp_path: Path, network: nn.Module
) -> None:
    image = tmp_path / "a.npy"
    image.write_bytes(b"x")
    item = {"image": str(image)}
    results = StudyResults(tmp_path / "out", source=tmp_path, network=network)
    assert results.begin(item)
    finish(results, image)
    image.rename(tmp_path / "away")  # as a share that is not mounted
    for again in (results, StudyResults(tmp_path / "out", source=tmp_path, network=network)):
        dataset = StudyDataset([item], dict, results=again)
        dataset.start()
        with dataset.at_work({READING: [dataset[0][READING]]}) as needed:
            assert not needed
        assert dataset.failures
    (tmp_path / "away").rename(image)
    assert not results.begin(item)


def test_hash_of_a_folder_is_that_of_its_own_files_without_results(tmp_path: Path) -> None:
    for name in ("1.dcm", "2.dcm"):
        (tmp_path / name).write_bytes(name.encode())
    expected = file_sha256([tmp_path / "1.dcm", tmp_path / "2.dcm"])
    for name in (".hidden", "x_anomaly.json", "x_anomaly_map.nii.gz", "summary.csv"):
        (tmp_path / name).write_bytes(b"x")
    assert file_sha256(tmp_path) == expected
    (tmp_path / "3.dcm").write_bytes(b"3")
    assert file_sha256(tmp_path) != expected


def test_state_hash_follows_the_values() -> None:
    network = nn.Linear(2, 1)
    before = state_sha256(network)
    assert state_sha256(network) == before
    with torch.no_grad():
        network.weight += 1e-6
    assert state_sha256(network) != before
