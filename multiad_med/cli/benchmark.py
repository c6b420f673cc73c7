"""``multiad benchmark``: methods on the same prepared slices."""

from __future__ import annotations

from collections.abc import Iterable
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from multiad_med.cli.choices import Architecture, Method, Part, Preset
from multiad_med.cli.commands import new_app
from multiad_med.cli.options import Device, check_device, output_option

if TYPE_CHECKING:
    from multiad_med.benchmark.outcomes import Outcome

COMPARE = (
    "Example: multiad benchmark compare slices/ -o comparison/ --method multiad --method padim"
)
DUAL = (
    "Example: multiad benchmark dual --set fashion_mnist --source fashion-mnist/ -o dual/ --size 64 "
    "--prepare training_images=1000 --prepare test_images=2000"
)
ABLATE = "Example: multiad benchmark ablate slices/ -o ablation/ --epochs 10"

app = new_app(help="Train and test methods on the same prepared slices.")

Caches = Annotated[
    list[Path], typer.Argument(help="Folders that `multiad prepare` wrote.", metavar="SLICES...")
]
TeacherWeights = Annotated[
    str, typer.Option(help="ImageNet's weights of the teacher (imagenet), or a file.")
]
Seeds = Annotated[
    list[int] | None,
    typer.Option(
        "--seed", help="Start of the random numbers, 0 by default. Repeat it for several."
    ),
]
TestPart = Annotated[Part, typer.Option(help="Which half of the test set.")]


@app.command(epilog=COMPARE, no_args_is_help=True)
def compare(
    caches: Caches,
    output: Annotated[Path, output_option("Folder for outcomes and comparison.md.")],
    methods: Annotated[
        list[Method] | None,
        typer.Option("--method", help="A method, all by default. Repeat it for several."),
    ] = None,
    teacher: Annotated[
        Architecture, typer.Option(help="Architecture of the teacher.")
    ] = Architecture.EFFICIENTNET_LITE0,
    teacher_weights: TeacherWeights = "imagenet",
    epochs: Annotated[
        int, typer.Option(min=1, help="Epochs of methods that train by epochs.")
    ] = 20,
    bundle: Annotated[
        str | None,
        typer.Option(help="The bundle whose choices Multi-AD makes, none by default."),
    ] = None,
    seeds: Seeds = None,
    part: TestPart = Part.ALL,
    files: Annotated[
        list[str] | None,
        typer.Option(
            "--file",
            metavar="METHOD.NAME=PATH",
            help="A file that a method needs, such as dinomaly.weights=dinov2.pth.",
        ),
    ] = None,
    device: Device = "auto",
) -> None:
    """Train and test Multi-AD, its presets and published methods on the same slices.

    The published methods need the extra benchmark.
    """
    from multiad_med.benchmark.compare import METHODS, parse_files
    from multiad_med.benchmark.compare import compare as run

    outcomes = run(
        caches,
        output,
        methods=[str(method) for method in methods] if methods else METHODS,
        seeds=seeds or [0],
        teacher=str(teacher),
        teacher_weights=teacher_weights,
        epochs=epochs,
        bundle=bundle,
        part=str(part),
        device=check_device(device),
        files=parse_files(files or []),
    )
    _print_outcomes(output / "comparison.md", outcomes)


@app.command(epilog=ABLATE, no_args_is_help=True)
def ablate(
    caches: Caches,
    output: Annotated[Path, output_option("Folder for outcomes and ablation.md.")],
    preset: Annotated[Preset, typer.Option(help="The networks.")] = Preset.EFFICIENTNET_LITE0,
    teacher_weights: TeacherWeights = "imagenet",
    epochs: Annotated[int, typer.Option(min=1, help="Epochs of each training.")] = 20,
    learning_rate: Annotated[
        float, typer.Option(help="Highest learning rate of the cycle.")
    ] = 1e-3,
    adversarial_weight: Annotated[
        float, typer.Option(help="Weight of the discriminator's loss (lambda) where it is on.")
    ] = 0.01,
    seeds: Seeds = None,
    part: TestPart = Part.ALL,
    device: Device = "auto",
) -> None:
    """Run the paper's Table 4: SE, discriminator and fusion, each on and off."""
    from multiad_med.benchmark.ablate import ablate as run
    from multiad_med.benchmark.detectors import Settings

    outcomes = run(
        caches,
        output,
        settings=Settings(
            str(preset), teacher_weights=teacher_weights, epochs=epochs, learning_rate=learning_rate
        ),
        adversarial_weight=adversarial_weight,
        seeds=seeds or [0],
        part=str(part),
        device=check_device(device),
    )
    _print_outcomes(output / "ablation.md", outcomes)


@app.command(epilog=DUAL, no_args_is_help=True)
def dual(
    output: Annotated[Path, output_option("Folder for slices, outcomes and dual.md.")],
    caches: Annotated[
        list[Path] | None,
        typer.Argument(
            help="Folders that `multiad prepare` wrote; leave them out with --set.",
            metavar="[SLICES...]",
        ),
    ] = None,
    data_set: Annotated[
        str | None, typer.Option("--set", help="A data set of the paper, such as fashion_mnist.")
    ] = None,
    source: Annotated[Path | None, typer.Option(help="The data set, as published.")] = None,
    protocol: Annotated[
        str,
        typer.Option(help="one_vs_rest, leave_one_out or halves; categories of products."),
    ] = "one_vs_rest",
    classes: Annotated[
        list[int] | None, typer.Option("--class", help="Number of a class, all by default.")
    ] = None,
    size: Annotated[
        int | None, typer.Option(min=14, help="Side of the images; the recipe's by default.")
    ] = None,
    settings: Annotated[
        list[str] | None,
        typer.Option(
            "--prepare", metavar="NAME=VALUE", help="Setting of the recipe. Repeat it for several."
        ),
    ] = None,
    preset: Annotated[str, typer.Option(help="A preset with a dual student.")] = "dual_lite2",
    teacher_weights: TeacherWeights = "imagenet",
    forms: Annotated[
        list[str] | None,
        typer.Option("--form", help="Form of the joint loss, likelihood by default."),
    ] = None,
    epochs: Annotated[
        int | None, typer.Option(min=1, help="Epochs of each training; the preset's by default.")
    ] = None,
    cache_features: Annotated[
        bool, typer.Option(help="Run the teacher once, and keep its features on disk meanwhile.")
    ] = False,
    score_fraction: Annotated[
        float | None,
        typer.Option(min=0, max=1, help="Part of an image's pixels whose mean is its score."),
    ] = None,
    together: Annotated[
        bool, typer.Option(help="One model for all categories instead of one each.")
    ] = False,
    seeds: Seeds = None,
    device: Device = "auto",
) -> None:
    """Train the second paper's dual student, and score its parts and their untrained rivals.

    With --set and --source the slices are prepared first.
    """
    from multiad_med.benchmark.dual import DUAL_SETS, prepare_runs
    from multiad_med.benchmark.dual import dual as run
    from multiad_med.utils.errors import InputError
    from multiad_med.utils.settings import parse_settings

    if (data_set is None) != (source is None) or (data_set is None) == (not caches):
        raise InputError("Give prepared slices, or both --set and --source.")
    if data_set is not None and source is not None:
        caches = prepare_runs(
            data_set,
            source,
            output / "slices",
            protocol=protocol,
            classes=classes or (),
            size=size,
            settings=parse_settings(settings or []),
        )
        if score_fraction is None:
            score_fraction = DUAL_SETS[data_set].score_fraction
    outcomes = run(
        caches or [],
        output,
        preset=preset,
        teacher_weights=teacher_weights,
        forms=forms or ["likelihood"],
        seeds=seeds or [0],
        epochs=epochs,
        cache_features=cache_features,
        score_fraction=score_fraction or 0.0,
        together=together,
        device=check_device(device),
    )
    _print_outcomes(output / "dual.md", outcomes)


def _print_outcomes(table: Path, outcomes: Iterable[Outcome]) -> None:
    """Print the tables of a comparison; end with status 1 where a run of it failed."""
    from multiad_med.benchmark.outcomes import FAILED

    typer.echo(table.read_text(encoding="utf-8"))
    if any(outcome.note.startswith(FAILED) for outcome in outcomes):
        raise typer.Exit(1)
