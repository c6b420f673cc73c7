"""Teachers of timm: a small stand-in for timm holds the contract, timm itself where it is installed."""

from __future__ import annotations

import sys
from pathlib import Path
from types import ModuleType
from typing import Any

import pytest
import torch
from torch import Tensor, nn

from multiad_med.networks import TimmFeatures, WeightsError, build_multiad, open_model
from multiad_med.networks.multiad import IMAGENET_MEAN, IMAGENET_STD
from multiad_med.networks.timm_backbone import _spread
from multiad_med.utils import InputError
from multiad_med.utils.errors import MissingPackageError

DECODER = "efficientnet_lite0_decoder"


class Whole(nn.Module):
    """A model of three levels and a classifier."""

    pretrained_cfg = {"mean": (0.5, 0.5, 0.5), "std": (0.25, 0.5, 0.5)}  # noqa: RUF012

    def __init__(self) -> None:
        super().__init__()
        self.feature_info = [{"reduction": s} for s in (2, 4, 8)]
        self.convs = nn.ModuleList(nn.Conv2d(3, 2 * s, s, stride=s) for s in (2, 4, 8))
        self.fc = nn.Linear(16, 10)


class Info:
    def __init__(self, strides: list[int]) -> None:
        self.strides = strides

    def channels(self) -> list[int]:
        return [2 * s for s in self.strides]

    def reduction(self) -> list[int]:
        return self.strides


class Levels(nn.Module):
    """What ``features_only`` gives of it."""

    def __init__(self, whole: Whole, levels: tuple[int, ...]) -> None:
        super().__init__()
        self.feature_info = Info([int(whole.feature_info[i]["reduction"]) for i in levels])
        self.convs = nn.ModuleList(whole.convs[i] for i in levels)

    def forward(self, x: Tensor) -> list[Tensor]:
        return [conv(x) for conv in self.convs]


CALLS: list[dict[str, Any]] = []


def create_model(name: str, **options: Any) -> nn.Module:
    """As of timm, of the one model ``small``."""
    if options.pop("dynamic_img_size", False):
        raise TypeError("unexpected keyword argument 'dynamic_img_size'")
    CALLS.append({"name": name, **options})
    if name == "flat":
        return nn.Linear(1, 1)
    if name != "small.tag":
        raise RuntimeError(f"Unknown model ({name})")
    whole = Whole()
    if options.get("pretrained"):
        state = options.get("pretrained_cfg_overlay", {}).get("state_dict")
        if state is None:
            raise ConnectionError("no network")
        whole.load_state_dict(state)
    return Levels(whole, options["out_indices"]) if options.get("features_only") else whole


@pytest.fixture
def stand_in(monkeypatch: pytest.MonkeyPatch) -> None:
    module = ModuleType("timm")
    module.create_model = create_model  # type: ignore[attr-defined]
    monkeypatch.setitem(sys.modules, "timm", module)
    CALLS.clear()


@pytest.mark.parametrize(
    ("levels", "taken"),
    [([0, 1], (0, 1)), ([1, 2, 3, 4], (1, 2, 3, 4)), (list(range(12)), (2, 5, 8, 11))],
)
def test_at_most_four_levels_are_taken_evenly_with_the_last(
    levels: list[int], taken: tuple[int, ...]
) -> None:
    assert _spread(levels) == taken


@pytest.mark.usefixtures("stand_in")
def test_levels_of_stride_4_and_more_are_stages_of_the_image_in_the_models_own_normalisation() -> (
    None
):
    network = TimmFeatures("timm/small.tag")
    assert CALLS[-1] == {"name": "small.tag", "features_only": True, "out_indices": (1, 2)}
    assert network.channels == (8, 16)
    assert network.strides == (4, 8)
    image = torch.rand(1, 3, 64, 64)
    mean, std = (torch.tensor(v).view(1, 3, 1, 1) for v in (IMAGENET_MEAN, IMAGENET_STD))
    wanted = (image - 0.5) / torch.tensor([0.25, 0.5, 0.5]).view(1, 3, 1, 1)
    with torch.no_grad():
        found = network((image - mean) / std)
        for feature, conv in zip(found, network.network.convs, strict=True):
            assert torch.allclose(feature, conv(wanted), atol=1e-5)


@pytest.mark.usefixtures("stand_in")
def test_a_file_of_the_whole_model_is_loaded_strictly(tmp_path: Path) -> None:
    file, state = tmp_path / "small.pth", Whole().state_dict()
    torch.save(state, file)
    network = build_multiad(DECODER, teacher="timm/small.tag", teacher_weights=file)
    assert torch.equal(network.teacher.network.convs[1].weight, state["convs.2.weight"])
    del state["convs.2.bias"]
    torch.save(state, file)
    with pytest.raises(WeightsError, match=r"timm/small\.tag.*\['convs\.2\.bias"):
        build_multiad(DECODER, teacher="timm/small.tag", teacher_weights=file)


@pytest.mark.usefixtures("stand_in")
def test_without_a_network_the_way_out_is_told() -> None:
    with pytest.raises(WeightsError, match=r"small\.tag\b.*no network.*teacher_weights"):
        build_multiad(DECODER, teacher="timm/small.tag")


@pytest.mark.usefixtures("stand_in")
def test_a_model_names_its_teacher_and_needs_no_weights_of_timm(tmp_path: Path) -> None:
    network = build_multiad(DECODER, teacher="timm/small.tag", teacher_weights="random").eval()
    assert network.stages == [1, 2]
    assert network.card.network["teacher"] == "timm/small.tag"
    torch.save(network.state_dict(), tmp_path / "model.pt")
    CALLS.clear()
    again = open_model(tmp_path / "model.pt").eval()
    assert not any(call.get("pretrained") for call in CALLS)
    image = torch.rand(1, 3, 64, 64)
    torch.testing.assert_close(again(image), network(image), atol=1e-6, rtol=0)
    assert torch.equal(torch.jit.script(network)(image), network(image))


@pytest.mark.usefixtures("stand_in")
@pytest.mark.parametrize(
    ("choices", "message"),
    [
        ({"teacher": "timm/none"}, r"timm/none: .*Unknown model \(none\)"),
        ({"teacher": "timm/flat"}, "timm/flat: .*feature maps"),
        ({"teacher": "timm/hf-hub:a/b"}, "timm's name.*no address"),
        ({"teacher": "timm/small.tag", "output_stride": 8}, r"\b32\b.*small\.tag\b.*got 8"),
        ({"teacher": "timm/small.tag", "student": "image", "se": True}, "give se=False"),
    ],
)
def test_what_timm_has_not_is_refused(choices: dict[str, Any], message: str) -> None:
    with pytest.raises(InputError, match=message):
        build_multiad(DECODER, teacher_weights="random", **choices)


def test_without_timm_its_extra_is_told(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "timm", None)
    with pytest.raises(MissingPackageError, match=r"pip install 'multiad-med\[timm\]'"):
        TimmFeatures("timm/resnet18")


@pytest.mark.parametrize(
    ("name", "channels", "strides"),
    [
        ("resnet18.a1_in1k", (64, 128, 256, 512), (4, 8, 16, 32)),
        ("swin_tiny_patch4_window7_224.ms_in1k", (96, 192, 384, 768), (4, 8, 16, 32)),
        ("vit_tiny_patch16_224.augreg_in21k_ft_in1k", (192,) * 4, (16,) * 4),
    ],
)
def test_features_equal_timms_own_intermediates(
    tmp_path: Path, name: str, channels: tuple[int, ...], strides: tuple[int, ...]
) -> None:
    try:
        import timm
    except (ImportError, RuntimeError) as error:
        pytest.skip(f"timm cannot be imported: {error}")
    network = TimmFeatures(f"timm/{name}").eval()
    assert (network.channels, network.strides) == (channels, strides)
    whole = timm.create_model(name).eval()
    torch.save(whole.state_dict(), tmp_path / "whole.pth")
    network.load(tmp_path / "whole.pth")
    x = torch.randn(1, 3, 224, 224)
    with torch.no_grad():
        found = network.eval()(x)
        expected = whole.forward_intermediates(
            x * network.scale + network.shift, indices=list(network.levels), intermediates_only=True
        )
    for feature, wanted in zip(found, expected, strict=True):
        assert torch.allclose(feature, wanted, atol=1e-5)
