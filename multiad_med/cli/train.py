"""``multiad train``."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from multiad_med.cli.choices import Domain, Preset
from multiad_med.cli.data import check_data
from multiad_med.cli.messages import show_log
from multiad_med.cli.options import (
    Device,
    Images,
    Labels,
    Settings,
    check_device,
    check_output,
    output_option,
    parse_checked,
)

OWN = (
    "dinomaly",
    "dual_dinov2_b",
    "dual_dinov2_s",
    "dual_lite2",
    "gaussian",
    "neighbours",
    "paper",
)
PRESETS = (*OWN, *(str(preset) for preset in Preset if preset not in OWN))
"""See :func:`multiad_med.resources.presets`."""

RUN = ("checkpoint.pt", "model.pt")
EXAMPLE = "Example: multiad train brain_mri normal/ -o run/"


def train(
    domain: Annotated[Domain, typer.Argument(help="What the model is for.")],
    normal: Annotated[
        Path,
        typer.Argument(help="Normal studies: a folder, a datalist.json, or prepared slices."),
    ],
    output: Annotated[
        Path, output_option("Folder for model.pt and the log. A run interrupted there goes on.")
    ],
    preset: Annotated[
        str | None,
        typer.Option(
            "--preset",
            metavar="NAME",
            autocompletion=lambda: list(PRESETS),
            help="Another training than the domain's own. paper: all of the Multi-AD paper. gaussian, "
            "neighbours: one pass over the images, without a student. Another network alone: "
            f"{', '.join(PRESETS[len(OWN) :])}.",
        ),
    ] = None,
    rate: Annotated[
        float | None,
        typer.Option(
            min=0,
            max=1,
            help="Share of normal slices, images and studies that may be called anomalous.",
        ),
    ] = None,
    smallest: Annotated[
        int | None,
        typer.Option(
            "--smallest",
            min=1,
            metavar="PIXELS",
            help="Side of the smallest defect that matters, in pixels of the images: decides on the "
            "network's size. Of industrial images.",
        ),
    ] = None,
    images: Images = None,
    labels: Labels = None,
    settings: Settings = None,
    seed: Annotated[int | None, typer.Option("--seed", help="Start of the random numbers.")] = None,
    device: Device = "auto",
) -> None:
    """Learn what is normal from normal studies, and write a model.

    Some of the studies are held out: they set the thresholds of the verdicts.
    """
    bundle = f"multiad_{domain}"
    chosen = parse_checked(
        settings,
        bundle=bundle,
        config="train.json",
        image_glob=images,
        label_glob=labels,
        seed=seed,
        preset=preset,
        smallest=smallest,
        image_false_positive_rate=rate,
        volume_false_positive_rate=rate,
    )
    check_data(normal, domain)
    check_output(output, own=RUN)
    check_device(device)

    show_log()

    from multiad_med.detector import AnomalyDetector

    AnomalyDetector(domain, device=device, **chosen).fit(normal, output=output)
