"""Methods by anomalib: the contract of a detector, agreement with anomalib itself, and refusals."""

from __future__ import annotations

import importlib.util
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from monai.utils import set_determinism
from PIL import Image
from torch import Tensor, nn

from multiad_med.benchmark.detectors import UnavailableError
from multiad_med.benchmark.methods import METHODS, build_method
from multiad_med.benchmark.methods.base import Stages
from multiad_med.benchmark.methods.memory_bank import in_place
from multiad_med.networks import ResNetFeatures, build_extractor

pytestmark = [  # of anomalib, about itself
    pytest.mark.filterwarnings("ignore:Importing from timm:FutureWarning"),
    pytest.mark.filterwarnings("ignore:The anomalib.models:FutureWarning"),
    pytest.mark.filterwarnings("ignore:Argument embeddings:DeprecationWarning"),  # given or not
]

SIZE = 96
COMMON_TEACHER = ("padim", "patchcore", "stfpm", "supersimplenet")

needs_anomalib = pytest.mark.skipif(
    importlib.util.find_spec("anomalib") is None,
    reason="anomalib is not installed: pip install '.[benchmark]'",
)


def slices(count: int, *, size: int = SIZE, channels: int = 3) -> Any:
    """Normal slices: smooth gradients with a little noise."""
    generator = torch.Generator().manual_seed(0)
    ramp = torch.linspace(0.3, 0.6, size).expand(channels, size, size)
    return [
        {
            "image": (ramp + 0.02 * torch.randn(ramp.shape, generator=generator)).clamp(0, 1),
            "foreground": torch.ones(1, size, size, dtype=torch.bool),
        }
        for _ in range(count)
    ]


def lesion(size: int = SIZE) -> tuple[Tensor, Tensor]:
    """A normal image and one with a chequered square, and the square."""
    images = torch.stack([item["image"] for item in slices(2, size=size)])
    mask = torch.zeros(size, size, dtype=torch.bool)
    mask[size // 2 : size // 2 + 24, size // 2 : size // 2 + 24] = True
    chequers = (torch.arange(size)[:, None] // 3 + torch.arange(size) // 3) % 2
    images[1, :, mask] = chequers[mask].float()
    return images, mask


def options(architecture: str = "efficientnet_lite0", **changes: Any) -> dict[str, Any]:
    """Arguments of build_method with a random teacher."""
    torch.manual_seed(0)
    given = {
        "teacher": build_extractor(architecture),
        "architecture": architecture,
        "size": SIZE,
        "epochs": 2,
        "batch_size": 4,
    }
    return given | changes


@needs_anomalib
@pytest.mark.parametrize("name", COMMON_TEACHER)
def test_contract_of_a_detector(name: str) -> None:
    given = options()
    before = {k: v.clone() for k, v in given["teacher"].state_dict().items()}
    given["teacher"].train()
    method = build_method(name, **given)
    training = slices(6)
    method.fit(training, training[:2], seed=3)
    images, _ = lesion()
    foreground = torch.ones(2, 1, SIZE, SIZE, dtype=torch.bool)
    foreground[:, :, :20] = False
    maps, scores = method.predict(images, foreground)
    assert maps.shape == (2, 1, SIZE, SIZE)
    assert scores.shape == (2,)
    assert maps.dtype == scores.dtype == torch.float32
    assert maps.isfinite().all()
    assert scores.isfinite().all()
    assert float(maps[foreground].min()) >= 0
    assert (maps[:, :, :20] == 0).all()
    stored = sum(v.numel() * v.element_size() for v in before.values()) / 1e6
    assert method.size_mb > stored

    method.fit(training, training[:2], seed=3)
    again, again_scores = method.predict(images, foreground)
    assert torch.equal(maps, again)
    assert torch.equal(scores, again_scores)
    single, single_score = method.predict(images[1:], foreground[1:])
    torch.testing.assert_close(single, maps[1:], rtol=1e-3, atol=1e-4)
    torch.testing.assert_close(single_score, scores[1:], rtol=1e-3, atol=1e-4)

    assert given["teacher"].training
    assert all(p.requires_grad for p in given["teacher"].parameters())
    assert all(torch.equal(v, before[k]) for k, v in given["teacher"].state_dict().items())


@needs_anomalib
@pytest.mark.parametrize("name", ["padim", "patchcore", "reverse_distillation", "stfpm"])
def test_a_lesion_is_found(name: str) -> None:
    method = build_method(name, **options("resnet18", epochs=15))
    method.fit(slices(8), slices(2), seed=0)
    images, mask = lesion()
    maps, scores = method.predict(images, torch.ones(2, 1, SIZE, SIZE, dtype=torch.bool))
    assert float(scores[1]) > float(scores[0])
    assert float(maps[1, 0][mask].mean()) > 1.2 * float(maps[1, 0][~mask].mean())
    losses = getattr(method, "losses", [1.0] * 14 + [0.0])
    assert len(losses) == 15
    assert losses[-1] < losses[0]


@needs_anomalib
@pytest.mark.parametrize("name", ["padim", "patchcore", "reverse_distillation", "stfpm"])
def test_a_lesion_in_a_rectangle_is_found_where_it_is(name: str) -> None:
    rows, columns = 96, 160
    generator = torch.Generator().manual_seed(0)

    def image() -> Tensor:
        ramp = torch.linspace(0.3, 0.6, columns).expand(3, rows, columns)
        return (ramp + 0.02 * torch.randn(ramp.shape, generator=generator)).clamp(0, 1)

    whole = torch.ones(1, rows, columns, dtype=torch.bool)
    normal = [{"image": image(), "foreground": whole} for _ in range(8)]
    method = build_method(name, **options("resnet18", size=(rows, columns), epochs=15))
    method.fit(normal, normal[:2], seed=0)
    bad = image()
    chequers = (torch.arange(24)[:, None] // 3 + torch.arange(24) // 3) % 2
    bad[:, 60:84, 16:40] = chequers.float()
    maps, _ = method.predict(bad[None], whole[None])
    assert maps.shape == (1, 1, rows, columns)
    inside = torch.zeros(rows, columns, dtype=torch.bool)
    inside[60:84, 16:40] = True
    assert float(maps[0, 0][inside].mean()) > 1.2 * float(maps[0, 0][~inside].mean())


@needs_anomalib
def test_super_simple_net_learns_from_noise_that_its_features_do_not_hide() -> None:
    losses = {}
    for noise_std in (0.015, 20.0):
        method: Any = build_method(
            "supersimplenet", **options(size=72, epochs=8, noise_std=noise_std)
        )
        method.fit(slices(8, size=72), slices(2, size=72), seed=0)
        losses[noise_std] = min(method.losses[-3:])
    assert losses[20.0] < 0.85 * losses[0.015]


@needs_anomalib
@pytest.mark.parametrize("name", ["padim", "patchcore"])
def test_maps_equal_anomalibs_own_on_the_same_weights(name: str) -> None:
    from anomalib.models.image.padim.torch_model import PadimModel
    from anomalib.models.image.patchcore.torch_model import PatchcoreModel

    layers = ["layer1", "layer2", "layer3"] if name == "padim" else ["layer2", "layer3"]
    model = PadimModel if name == "padim" else PatchcoreModel
    own: Any = model(layers=layers, backbone="resnet18", pre_trained=False)
    teacher = ResNetFeatures("resnet18").to(memory_format=torch.channels_last)  # type: ignore[call-overload]
    weights = own.feature_extractor.feature_extractor.state_dict()
    teacher.load_state_dict(teacher.state_dict() | weights)
    method: Any = build_method(name, **options("resnet18", teacher=teacher))
    method.fit(slices(6), slices(2), seed=0)
    images, _ = lesion()
    maps, scores = method.predict(images, torch.ones(2, 1, SIZE, SIZE))

    normalised = [method.prepare(item["image"][None]) for item in slices(6)]
    own.train()
    if name == "padim":
        own.idx = method.model.idx
        for image in normalised:
            own(image)
        own.fit()
    else:
        own.memory_bank = method.model.memory_bank
    own.eval()
    expected = own(method.prepare(images))
    torch.testing.assert_close(maps, expected.anomaly_map, rtol=1e-3, atol=1e-3)
    torch.testing.assert_close(scores, expected.pred_score.flatten(), rtol=1e-3, atol=1e-3)


@needs_anomalib
def test_the_coreset_is_anomalibs() -> None:
    from anomalib.models.components import KCenterGreedy

    patches = torch.randn(600, 20, generator=torch.Generator().manual_seed(0))
    chosen = []
    for sampler in (KCenterGreedy, in_place(KCenterGreedy)):
        set_determinism(seed=1)
        chosen.append(sampler(patches, 0.1).select_coreset_idxs())
    assert len(set(chosen[0])) == 60
    assert chosen[0] == chosen[1]


@needs_anomalib
def test_a_grey_image_equals_three_equal_channels() -> None:
    grey = slices(4, channels=1)
    colour = [item | {"image": item["image"].expand(3, -1, -1)} for item in grey]
    foreground = torch.ones(1, 1, SIZE, SIZE)
    maps = []
    for items in (grey, colour):
        method = build_method("patchcore", **options())
        method.fit(items, items, seed=0)
        maps.append(method.predict(items[0]["image"][None], foreground)[0])
    assert torch.equal(*maps)


@needs_anomalib
def test_images_of_another_size_are_refused() -> None:
    method: Any = build_method("patchcore", **options())
    with pytest.raises(ValueError, match=r"\(B, 1 or 3, 96, 96\)"):
        method.prepare(torch.rand(1, 3, 64, 64))


@needs_anomalib
def test_divergence_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    method: Any = build_method("stfpm", **options())
    monkeypatch.setattr(
        type(method), "loss", lambda self, images: self._loss(*self.model(images)) / 0
    )
    with pytest.raises(UnavailableError, match=r"STFPM\b.*diverged.*\b1\b"):
        method.fit(slices(4), slices(1), seed=0)


@needs_anomalib
def test_what_a_teacher_does_not_allow_is_refused() -> None:
    with pytest.raises(UnavailableError, match="mirrors ResNets"):
        build_method("reverse_distillation", **options())
    dilated = build_extractor("resnet18", output_stride=8)
    with pytest.raises(UnavailableError, match=r"strides \(4, 8, 8\)"):
        build_method("reverse_distillation", **options("resnet18", teacher=dilated))
    with pytest.raises(UnavailableError, match="larger than 64 pixels"):
        build_method("supersimplenet", **options(size=64))
    method = build_method(
        "stfpm", **options(architecture="resnet18") | {"architecture": "resnet50"}
    )
    with pytest.raises(ValueError, match=r"architecture.*teacher"):
        method.fit(slices(2), slices(1), seed=0)


@needs_anomalib
def test_methods_with_a_teacher_of_their_own_need_its_files(tmp_path: Path) -> None:
    with pytest.raises(UnavailableError, match="ImageNet images"):
        build_method("efficient_ad", **options())
    with pytest.raises(UnavailableError, match="ImageNet images"):
        build_method(
            "efficient_ad", **options(weights=tmp_path / "a.pth", imagenet=tmp_path / "no")
        )
    with pytest.raises(UnavailableError, match="DINOv2"):
        build_method("dinomaly", **options())


@needs_anomalib
def test_efficient_ad_with_files(tmp_path: Path) -> None:
    from anomalib.models.image.efficient_ad.torch_model import SmallPatchDescriptionNetwork

    folder = tmp_path / "imagenet" / "class"
    folder.mkdir(parents=True)
    pixels = np.random.default_rng(0).integers(0, 255, (80, 100, 3), dtype=np.uint8)
    Image.fromarray(pixels).save(folder / "0.png")
    state = SmallPatchDescriptionNetwork(384).state_dict()
    torch.save(state, tmp_path / "teacher.pth")
    method: Any = build_method(
        "efficient_ad",
        **options(
            epochs=1,
            batch_size=None,
            weights=tmp_path / "teacher.pth",
            imagenet=tmp_path / "imagenet",
        ),
    )
    method.fit(slices(1), slices(1), seed=0)
    foreground = torch.ones(1, 1, SIZE, SIZE)
    foreground[:, :, :20] = 0
    maps, scores = method.predict(slices(1)[0]["image"][None], foreground)
    assert maps.shape == (1, 1, SIZE, SIZE)
    assert torch.equal(scores, maps.amax(dim=(1, 2, 3)))
    assert float(maps[foreground > 0].min()) >= method.floor - 1e-6
    assert torch.equal(maps[:, :, :20], torch.full((1, 1, 20, SIZE), method.floor))
    assert torch.equal(method.model.teacher.state_dict()["conv1.weight"], state["conv1.weight"])


@needs_anomalib
def test_dinomaly_with_a_file(tmp_path: Path) -> None:
    import timm

    name = "vit_small_patch14_reg4_dinov2"
    torch.manual_seed(0)
    encoder = timm.create_model(name, pretrained=False).state_dict()
    state = dict(encoder)
    state["register_tokens"] = state.pop("reg_token")
    state["mask_token"] = torch.zeros(1, 384)
    state["pos_embed"] = torch.cat([torch.zeros(1, 1, 384), state["pos_embed"]], dim=1)
    torch.save(encoder, tmp_path / "timm.pth")
    torch.save(state, tmp_path / "dinov2.pth")
    for file in ("timm.pth", "dinov2.pth"):
        method: Any = build_method(
            "dinomaly", **options(epochs=1, weights=tmp_path / file, encoder=name)
        )
        extractor: Any = method.extractor(backbone=name, layers=["blocks.2"], output_fmt="NLC")
        loaded = extractor.feature_extractor.state_dict()
        assert all(torch.equal(loaded[k], v) for k, v in encoder.items())
    method.fit(slices(2), slices(1), seed=0)
    maps, scores = method.predict(slices(1)[0]["image"][None], torch.ones(1, 1, SIZE, SIZE))
    assert maps.shape == (1, 1, SIZE, SIZE)
    assert scores.shape == (1,)
    assert torch.equal(
        method.model.encoder.feature_extractor.state_dict()["cls_token"], encoder["cls_token"]
    )


def test_stages_are_the_networks_and_never_train_when_frozen() -> None:
    network = build_extractor("efficientnet_lite0").to(memory_format=torch.channels_last)  # type: ignore[call-overload]
    stages = Stages(network, ["layer2", "layer3"]).train()
    assert stages.out_dims == [40, 112]
    assert not any(m.training for m in stages.modules())
    x = torch.rand(1, 3, 64, 64)
    features = stages(x)
    assert list(features) == ["layer2", "layer3"]
    for got, expected in zip(features.values(), network(x)[1:3], strict=True):
        assert torch.equal(got, expected)
        assert got.is_contiguous()
        assert not got.requires_grad
    learner = Stages(nn.Module.train(build_extractor("resnet18")), ["layer1"], frozen=False)
    assert learner.train()(x)["layer1"].requires_grad


@pytest.mark.slow
@pytest.mark.parametrize("name", sorted(set(METHODS) - {"mkd", "simplenet"}))
def test_without_anomalib_the_reason_says_what_to_install(
    monkeypatch: pytest.MonkeyPatch, name: str
) -> None:
    for module in [m for m in sys.modules if m == "anomalib" or m.startswith("anomalib.")]:
        monkeypatch.delitem(sys.modules, module)
    monkeypatch.setitem(sys.modules, "anomalib", None)
    with pytest.raises(UnavailableError, match=r"pip install 'multiad-med\[benchmark\]'"):
        build_method(name, **options())


@pytest.mark.parametrize("name", ["mkd", "simplenet"])
def test_methods_without_a_package_are_listed_as_unavailable(name: str) -> None:
    with pytest.raises(UnavailableError, match="no maintained package"):
        build_method(name, **options())


def test_bad_arguments_are_refused() -> None:
    with pytest.raises(ValueError, match=r"method 'resnet'.*padim"):
        build_method("resnet", **options())
    with pytest.raises(ValueError, match="must be positive"):
        build_method("padim", **options(epochs=0))
