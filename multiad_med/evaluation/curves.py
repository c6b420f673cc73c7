"""Curves of a training, read from its TensorBoard log."""

from __future__ import annotations

from pathlib import Path

from multiad_med.evaluation.results import Curve
from multiad_med.utils.errors import InputError

__all__ = ["training_curves"]


def training_curves(folder: str | Path) -> list[Curve]:
    """Every scalar of a training's log by step.

    Args:
        folder: that holds TensorBoard's event files, at any depth.

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
        for tag, own in sorted(points.items())
    ]
