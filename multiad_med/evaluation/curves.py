"""Curves of a training, read from its TensorBoard log."""

from __future__ import annotations

from pathlib import Path

from multiad_med.evaluation.evaluation import Curve
from multiad_med.utils.errors import InputError

__all__ = ["training_curves"]


_ADVERSARIAL = ("loss_adversarial", "loss_discriminator", "discriminator_accuracy")


def _of_what_ran(points: dict[str, dict[int, float]]) -> dict[str, dict[int, float]]:
    """Leave out the discriminator's scalars where there was none; its loss is then always 0.

    The whole loss is then that of distillation.
    """
    if any(points.get("loss_discriminator", {}).values()):
        return points
    without = {tag: own for tag, own in points.items() if tag not in _ADVERSARIAL}
    if without.get("loss") == without.get("loss_distillation"):
        without.pop("loss_distillation", None)
    return without


def training_curves(folder: str | Path) -> list[Curve]:
    """Return scalars of a training's log by step, without those of a discriminator that was off.

    Args:
        folder: holds TensorBoard's event files, at any depth.

    Raises:
        InputError: when there is no event file.
    """
    from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

    files = sorted(Path(folder).rglob("events.out.tfevents.*"))
    if not files:
        raise InputError(
            f"{folder} holds no TensorBoard log (events.out.tfevents.*): give the output_dir of the "
            "training, or leave it out."
        )
    points: dict[str, dict[int, float]] = {}
    for file in files:
        events = EventAccumulator(str(file), size_guidance={"scalars": 0})
        events.Reload()
        for tag in events.Tags()["scalars"]:
            for event in events.Scalars(tag):
                points.setdefault(tag, {})[event.step] = event.value
    return [
        Curve(tag, [float(step) for step in sorted(own)], [own[step] for step in sorted(own)])
        for tag, own in sorted(_of_what_ran(points).items())
    ]
