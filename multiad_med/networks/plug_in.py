"""Teachers and students of a user's own, by dotted name, held to their contracts when they are built."""

from __future__ import annotations

import math
from typing import Any

import torch
from torch import Tensor, nn

from multiad_med.networks.extractor import WHOLE_IMAGE, FeatureExtractor
from multiad_med.utils.dotted_name import locate_class
from multiad_med.utils.errors import InputError

__all__ = ["check_features", "plugged_student", "plugged_teacher"]

_SIDE = 64


def plugged_teacher(name: str) -> nn.Module:
    """Return a teacher, built without arguments, that gives the features which it promises.

    Args:
        name: dotted name of a class that fulfils :class:`FeatureExtractor`.

    Raises:
        InputError: when it cannot be imported or does not fulfil it; the message says in what.
    """
    teacher = _built(locate_class(name, nn.Module, what="teacher"), name)
    if not isinstance(teacher, FeatureExtractor):
        raise InputError(f"teacher {name}: it must have `channels` and `strides`, one per stage.")
    check_features(teacher, name)
    return teacher


def check_features(teacher: FeatureExtractor, name: str) -> None:
    """Refuse a teacher that does not give the features which its channels and strides promise.

    Args:
        teacher: an extractor that is a module.
        name: its name, for the message.

    Raises:
        InputError: naming the shapes promised and given.
    """
    image = _image(teacher)
    side = image.shape[-1]
    promised: list[tuple[int, ...]] = [
        (1, channels, *2 * (side // stride if stride else 1,))
        for channels, stride in zip(teacher.channels, teacher.strides, strict=True)
    ]
    _check(name, _features(teacher, image), promised, "teacher", "its channels and strides promise")


def plugged_student(name: str, teacher: FeatureExtractor) -> nn.Module:
    """Return a student, built from the teacher's channels and strides, that gives features of its shapes.

    Args:
        name: dotted name of a class; called with ``(image, teacher_features)`` it returns a list.
        teacher: of whose features the student's must have the shapes.

    Raises:
        InputError: when it cannot be imported or gives other features; the message says which.
    """
    kind = locate_class(name, nn.Module, what="student")
    student = _built(kind, name, teacher.channels, teacher.strides)
    image = _image(teacher)
    target = _features(teacher, image)
    found = _features(student, image, target)
    _check(name, found, [tuple(t.shape) for t in target], "student", "the teacher gives")
    return student


def _built(kind: type[nn.Module], name: str, *arguments: tuple[int, ...]) -> nn.Module:
    try:
        return kind(*arguments)
    except TypeError as error:
        wanted = "channels and strides" if arguments else "no arguments"
        raise InputError(f"{name}: it is built with {wanted}, and {error}.") from error


def _image(teacher: FeatureExtractor) -> Tensor:
    strides = [stride for stride in teacher.strides if stride != WHOLE_IMAGE]
    if len(teacher.channels) != len(teacher.strides) or min(strides, default=0) < 1:
        raise InputError(
            f"The teacher's channels {teacher.channels} and strides {teacher.strides} must be as many, "
            "and strides at least 1, or 0 of a token of the whole image."
        )
    step = math.lcm(*strides)
    side = step * math.ceil(_SIDE / step)
    return torch.zeros(1, 3, side, side)


@torch.no_grad()
def _features(module: Any, *arguments: Tensor | list[Tensor]) -> list[Tensor]:
    training = module.training
    features: list[Tensor] = module.eval()(*arguments)
    module.train(training)
    return features


def _check(
    name: str, found: list[Tensor], wanted: list[tuple[int, ...]], what: str, by: str
) -> None:
    shapes = [tuple(f.shape) for f in found] if isinstance(found, list) else type(found).__name__
    if shapes != wanted:
        raise InputError(f"{what} {name}: {by} {wanted}, as a list, and it gives {shapes}.")
