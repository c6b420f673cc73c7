"""Stages by name, and teachers by name."""

from __future__ import annotations

from typing import Any

import pytest

from multiad_med.networks import EfficientNetLiteFeatures, VGGFeatures, build_multiad, stage_numbers
from multiad_med.utils import InputError

DECODER = "efficientnet_lite0_decoder"


@pytest.mark.parametrize(
    ("stages", "strides", "numbers"),
    [
        (["stride8", "stride16"], (4, 8, 16, 32), (2, 3)),
        ([1, "stride32"], (4, 8, 16, 32), (1, 4)),
        ("stride4", (4, 8, 8, 8), (1,)),
        ([3, 4], (4, 8, 8, 8), (3, 4)),
    ],
)
def test_stages_by_name_are_those_of_the_stride(
    stages: list[int | str], strides: tuple[int, ...], numbers: tuple[int, ...]
) -> None:
    assert stage_numbers(stages, strides) == numbers


@pytest.mark.parametrize(
    ("stages", "strides", "message"),
    [
        (
            ["stride64"],
            (4, 8),
            r"'stride64'.*\['stride4', 'stride8'\]",
        ),
        (["stride8"], (4, 8, 8), r"'stride8'.*\['stride4'\].*\[4, 8, 8\]"),
        (["layer2"], (4, 8), "'layer2'; choose from"),
    ],
)
def test_a_name_of_no_stage_or_several_is_refused(
    stages: list[int | str], strides: tuple[int, ...], message: str
) -> None:
    with pytest.raises(InputError, match=message):
        stage_numbers(stages, strides)


def test_the_network_distils_and_fuses_the_named_stages_and_its_card_has_the_numbers() -> None:
    network = build_multiad(
        DECODER,
        teacher_weights="random",
        stages=["stride4", "stride8", "stride16"],
        fused=["stride8", "stride16"],
    )
    assert network.card.network["stages"] == network.stages == [1, 2, 3]
    assert network.card.network["fused"] == network.fused == [2, 3]
    with pytest.raises(InputError, match="No stage has the name 'stride2'"):
        build_multiad(DECODER, teacher_weights="random", fused=["stride2"])


@pytest.mark.parametrize(
    ("teacher", "kind"),
    [("efficientnet_lite2", EfficientNetLiteFeatures), ("vgg16", VGGFeatures)],
)
def test_another_teacher_takes_the_place_of_the_presets(teacher: str, kind: type) -> None:
    network = build_multiad(DECODER, teacher=teacher, teacher_weights="random")
    assert isinstance(network.teacher, kind)
    assert network.stages == [1, 2, 3]
    told: dict[str, Any] = network.card.network
    assert (told["teacher"], told["output_stride"]) == (teacher, 32)
    again = build_multiad(**told, teacher_weights="checkpoint")
    assert again.card.network == told
    for name, value in network.state_dict().items():
        assert again.state_dict()[name].shape == value.shape or name == "_extra_state"


def test_the_presets_stride_is_not_anothers_teachers() -> None:
    network = build_multiad("resnet18", teacher="resnet34", teacher_weights="random")
    assert network.teacher.strides == (4, 8, 16, 32)  # the preset's own last stride is 8
