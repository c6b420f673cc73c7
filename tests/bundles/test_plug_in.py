"""docs/plug-in.md does what it says: its classes train, load and predict; others are refused by name."""

from __future__ import annotations

import os
import re
import subprocess
import sys
from pathlib import Path

import pytest
import torch
from monai.data import MetaTensor
from monai.transforms import Transform
from torch import Tensor, nn

from multiad_med.data import SliceCache, describe_training
from multiad_med.networks import build_multiad, open_model, read_card
from multiad_med.resources import bundle_path
from multiad_med.testing.cohorts import COHORTS
from multiad_med.testing.slice_caches import make_cache
from multiad_med.transforms import PluggedTransformd
from multiad_med.utils import InputError

PAGE = Path(__file__).parents[2] / "docs" / "plug-in.md"
BLOCKS = re.findall(r"```(python|bash)\n(.*?)```", PAGE.read_text(encoding="utf-8"), re.DOTALL)


def test_the_pages_code_trains_loads_and_predicts(tmp_path: Path) -> None:
    data = COHORTS["multiad_brain_mri"](tmp_path)
    env = os.environ | {
        "B": str(bundle_path("multiad_brain_mri")),
        "DATA": str(data),
        "PATH": f"{Path(sys.executable).parent}{os.pathsep}{os.environ['PATH']}",
    }
    printed = ""
    for language, code in BLOCKS:
        assert len(code.splitlines()) <= 20
        name = re.match(r"# (\w+\.py)\n", code)
        if name:
            (tmp_path / name[1]).write_text(code)
            continue
        command = ["bash", "-c", code] if language == "bash" else [sys.executable, "-c", code]
        done = subprocess.run(
            command, cwd=tmp_path, env=env, capture_output=True, text=True, timeout=300
        )
        assert done.returncode == 0, done.stderr
        printed = done.stdout
    assert printed == "(1, 1, 256, 256)\n"
    card = read_card(tmp_path / "run" / "model.pt")
    assert card is not None
    assert card.network["teacher"] == "my_teacher.TwoStages"
    assert card.network["student"] == "my_student.Narrow"
    assert card.preparation["transform"] == "my_transform.Brighten"
    assert len(list((tmp_path / "maps").rglob("*_anomaly_map.nii.gz"))) == 2


class Tiny(nn.Module):
    """A teacher."""

    channels = (4, 8)
    strides = (4, 8)

    def __init__(self) -> None:
        super().__init__()
        self.convs = nn.ModuleList(nn.Conv2d(3, c, s, stride=s) for c, s in ((4, 4), (8, 8)))

    def forward(self, x: Tensor) -> list[Tensor]:
        return [conv(x) for conv in self.convs]


class Wrong(Tiny):
    channels = (4, 9)


class Unpromising(nn.Module):
    pass


class Copy(nn.Module):
    """A student."""

    def __init__(self, channels: tuple[int, ...], strides: tuple[int, ...]) -> None:
        super().__init__()
        self.scale = nn.Parameter(torch.tensor(0.5))

    def forward(self, image: Tensor, teacher_features: list[Tensor]) -> list[Tensor]:
        return [self.scale * f for f in teacher_features]


class Short(Copy):
    def forward(self, image: Tensor, teacher_features: list[Tensor]) -> list[Tensor]:
        return teacher_features[:1]


CALLED: list[str] = []


def function() -> None:
    CALLED.append("function")


HERE = __name__
DECODER = "efficientnet_lite0_decoder"


def test_a_model_of_ones_own_classes_builds_itself(tmp_path: Path) -> None:
    network = build_multiad(DECODER, teacher=f"{HERE}.Tiny", student=f"{HERE}.Copy")
    assert network.stages == [1, 2]
    torch.save(network.state_dict(), tmp_path / "model.pt")
    again = open_model(tmp_path / "model.pt")
    assert isinstance(again.teacher, Tiny)
    assert isinstance(again.student, Copy)
    image = torch.rand(1, 3, 64, 64)
    assert torch.equal(again.eval()(image), network.eval()(image))
    assert not any(p.requires_grad for p in again.teacher.parameters())


def test_a_teacher_of_ones_own_has_its_weights_from_a_file(tmp_path: Path) -> None:
    weights = Tiny().state_dict()
    torch.save(weights, tmp_path / "tiny.pth")
    network = build_multiad(DECODER, teacher=f"{HERE}.Tiny", teacher_weights=tmp_path / "tiny.pth")
    for name, value in network.teacher.state_dict().items():
        assert torch.equal(value, weights[name])


@pytest.mark.parametrize(
    ("choices", "message"),
    [
        (
            {"teacher": "none_such.Teacher"},
            "teacher none_such.Teacher: .*No module",
        ),
        ({"teacher": f"{HERE}.Missing"}, "no attribute 'Missing'"),
        ({"teacher": "Tiny"}, "'Tiny'; choose .*dotted name"),
        ({"teacher": f"{HERE}.function"}, r"class .*torch\..*Module, got <function"),
        ({"teacher": "os.abort"}, r"class .*torch\..*Module"),
        ({"teacher": f"{HERE}.Unpromising"}, "`channels` and `strides`"),
        ({"teacher": f"{HERE}.Copy"}, "no arguments.*missing 2 required"),
        (
            {"teacher": f"{HERE}.Wrong"},
            r"promise \[\(1, 4, 16, 16\), \(1, 9, 8, 8\)\].* gives .*\(1, 8, 8, 8\)",
        ),
        ({"teacher": f"{HERE}.Tiny", "student": "image"}, "choose student 'decoder'"),
        ({"teacher": f"{HERE}.Tiny", "output_stride": 8}, "leave output_stride out"),
        (
            {"teacher": f"{HERE}.Tiny", "student": f"{HERE}.Short"},
            r"teacher gives \[.*\].*gives \[\(1, 4, 16, 16\)\]",
        ),
        (
            {"student": "nobody"},
            r"student.*\['image', 'decoder', 'dual', 'none'\].*got 'nobody'",
        ),
    ],
)
def test_what_does_not_keep_to_the_contract_is_refused_by_name(
    choices: dict[str, str], message: str
) -> None:
    with pytest.raises(InputError, match=message):
        build_multiad(DECODER, teacher_weights="random", **choices)  # type: ignore[arg-type]
    assert CALLED == []


class Half(Transform):
    def __call__(self, image: Tensor) -> Tensor:
        return image / 2


class Double(Transform):
    def __call__(self, image: Tensor) -> Tensor:
        return image * 2


class Crop(Transform):
    def __call__(self, image: Tensor) -> Tensor:
        return image[:, 1:]


def test_a_transform_changes_the_image_and_keeps_its_grid() -> None:
    image = MetaTensor(torch.ones(1, 4, 4, 2), affine=torch.diag(torch.tensor([2.0, 2, 3, 1])))
    changed = PluggedTransformd("image", f"{HERE}.Half")({"image": image})["image"]
    assert torch.equal(changed.as_tensor(), torch.full((1, 4, 4, 2), 0.5))
    assert torch.equal(changed.affine, image.affine)
    assert PluggedTransformd("image", None)({"image": image})["image"] is image


@pytest.mark.parametrize(
    ("name", "message"),
    [
        ("Double", r"values.*\[2, 2\].*\[0, 1\]"),
        ("Crop", r"\(1, 3, 4, 2\).*\(1, 4, 4, 2\)"),
        ("Tiny", "class .*monai.transforms.*Transform"),
    ],
)
def test_a_transform_that_spoils_the_image_is_refused(name: str, message: str) -> None:
    with pytest.raises(InputError, match=message):
        PluggedTransformd("image", f"{HERE}.{name}")({"image": torch.ones(1, 4, 4, 2)})


def test_prepared_slices_are_refused_with_a_transform(tmp_path: Path) -> None:
    cache = SliceCache(make_cache(tmp_path), split="training")
    with pytest.raises(InputError, match=r"prepared slices.*transform"):
        describe_training(
            domain="brain_mri",
            preparation={"transform": "a.B"},
            settings={},
            training=cache,
            held_out=cache,
        )
