"""The command ``multiad``: one thin command per verb, heavy imports inside them."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Any

import typer
from typer.core import TyperGroup

import multiad_med


class _Commands(TyperGroup):
    """Tells an error that a user can mend in one line; any other, a fault, keeps its trace."""

    def parse_args(self, ctx: Any, args: list[str]) -> list[str]:
        """Take ``--debug`` from wherever it stands, also behind the command."""
        end = args.index("--") if "--" in args else len(args)
        if "--debug" in args[:end]:
            args = ["--debug", *(a for a in args[:end] if a != "--debug"), *args[end:]]
        return super().parse_args(ctx, args)

    def invoke(self, ctx: Any) -> Any:
        """Run the command."""
        try:
            return super().invoke(ctx)
        except Exception as error:  # of which all but ours are raised again
            from multiad_med.utils.errors import user_error

            known = user_error(error)
            if known is None or ctx.params["debug"]:
                raise
            typer.echo(f"Error: {known}", err=True)
            raise typer.Exit(1) from error


app = typer.Typer(
    cls=_Commands,
    help="Multi-AD Med: learn what is normal, show where a new study departs from it.",
    no_args_is_help=True,
    add_completion=False,
    pretty_exceptions_enable=False,
)


def _version(value: bool) -> None:
    if value:
        typer.echo(f"multiad {multiad_med.__version__}")
        raise typer.Exit


def _print_outcomes(table: Path, *, failed: bool) -> None:
    """Print the tables of a comparison; status 1 where a run of it failed."""
    typer.echo(table.read_text(encoding="utf-8"))
    if failed:
        raise typer.Exit(1)


@app.callback()
def main(
    version: Annotated[
        bool, typer.Option("--version", callback=_version, is_eager=True, help="Show the version.")
    ] = False,
    debug: Annotated[
        bool, typer.Option("--debug", help="Show the trace of an error, wherever this stands.")
    ] = False,
) -> None:
    """Learn what is normal, show where a new study departs from it. Not for diagnostic use."""


@app.command()
def demo(
    output: Annotated[Path, typer.Option(help="Folder for the cohort, maps, pictures, metrics.")],
    seed: Annotated[int, typer.Option(help="Of the cohort and the training.")] = 0,
) -> None:
    """Train on an embedded cohort of brains and show maps of unseen test volumes (about 10 minutes)."""
    from multiad_med.demo import run_demo

    run_demo(output, seed=seed)


@app.command()
def prepare(
    recipe: Annotated[
        str | None, typer.Argument(help="Name of a recipe (see --list), or a YAML file.")
    ] = None,
    source: Annotated[
        Path | None, typer.Option(help="Folder, table, .zip or .tar of the data set as published.")
    ] = None,
    target: Annotated[Path | None, typer.Option(help="Folder for the slices.")] = None,
    settings: Annotated[
        list[str] | None, typer.Option("--set", help="NAME=VALUE, a setting of the recipe.")
    ] = None,
    workers: Annotated[
        int | None, typer.Option(help="Processes; by default one per processor.")
    ] = None,
    show_list: Annotated[bool, typer.Option("--list", help="Explain all recipes.")] = False,
    check: Annotated[
        Path | None, typer.Option(help="Say what a folder holds and which recipe fits.")
    ] = None,
) -> None:
    """Turn a data set's files, as published, into slices for training and test.

    Interrupted, the same command goes on where it stopped. Studies that cannot be prepared are
    listed at the end, with status 1.
    """
    from multiad_med.preparation import command

    if show_list:
        typer.echo(command.explain_recipes())
    elif check is not None:
        typer.echo(command.explain_folder(check))
    elif recipe is None or source is None or target is None:
        raise typer.BadParameter(
            "Give a recipe, --source and --target; or --list; or --check and a folder."
        )
    else:
        summary = command.run(recipe, source, target, settings or [], workers)
        typer.echo(str(summary))
        if summary.failures:
            raise typer.Exit(1)


@app.command()
def export(
    store: Annotated[Path, typer.Argument(help="Folder that `multiad prepare` wrote.")],
    target: Annotated[Path, typer.Option(help="New folder for the pictures.")],
    layout: Annotated[str, typer.Option(help="mvtec or bmad.")] = "mvtec",
    bits: Annotated[int, typer.Option(help="8, or 16 for one grey channel.")] = 8,
) -> None:
    """Write prepared slices as a tree of PNG files that other tools read."""
    from multiad_med.preparation import ExportLayout, export_pictures

    if layout not in list(ExportLayout):
        raise typer.BadParameter(f"layout is one of {[str(name) for name in ExportLayout]}.")
    count = export_pictures(store, target, layout=ExportLayout(layout), bits=bits)
    typer.echo(f"{count} slices written to {target}")


@app.command()
def evaluate(
    data: Annotated[
        Path, typer.Argument(help="Prepared slices, or volumes or a datalist with lesion masks.")
    ],
    model: Annotated[Path, typer.Option(help="model.pt of a finished training.")],
    output: Annotated[Path, typer.Option(help="Folder for metrics, tables and report.html.")],
    bundle: Annotated[
        str | None, typer.Option(help="Of a model of an older version, which does not tell it.")
    ] = None,
    part: Annotated[
        str, typer.Option(help="Of prepared slices: all, development, report.")
    ] = "all",
    labels: Annotated[
        str | None, typer.Option(help="Glob of the masks in a folder of volumes.")
    ] = None,
    logs: Annotated[Path | None, typer.Option(help="Folder of the training's log.")] = None,
    bootstrap: Annotated[int, typer.Option(help="Resamples of the intervals.")] = 1000,
    device: Annotated[str, typer.Option(help="Such as cpu or cuda:0.")] = "cpu",
) -> None:
    """Say how good a trained model is, how sure that is, and where it fails: one HTML page."""
    from rich.console import Console

    from multiad_med.evaluation.command import evaluate_model
    from multiad_med.evaluation.summary import print_summary
    from multiad_med.utils.json_files import read_json

    report = evaluate_model(
        data,
        model,
        output,
        bundle=bundle,
        part=part,
        labels=labels,
        training_logs=logs,
        bootstrap=bootstrap,
        device=device,
    )
    metrics = read_json(output / "metrics.json")
    print_summary(metrics, Console(), title=str(data))
    typer.echo(f"report: {report}")


@app.command()
def ablate(
    stores: Annotated[list[Path], typer.Argument(help="Folders that `multiad prepare` wrote.")],
    output: Annotated[Path, typer.Option(help="Folder for outcomes and ablation.md.")],
    preset: Annotated[str, typer.Option(help="Of the networks.")] = "efficientnet_lite0",
    teacher_weights: Annotated[str, typer.Option(help="imagenet, or a file.")] = "imagenet",
    epochs: Annotated[int, typer.Option(help="Of each training.")] = 20,
    learning_rate: Annotated[float, typer.Option(help="Highest of the cycle.")] = 1e-3,
    adversarial_weight: Annotated[float, typer.Option(help="Lambda where D is on.")] = 0.01,
    seeds: Annotated[list[int] | None, typer.Option("--seed", help="Repeat for several.")] = None,
    part: Annotated[str, typer.Option(help="all, development, report.")] = "all",
    device: Annotated[str, typer.Option(help="Such as cpu or cuda:0.")] = "cpu",
) -> None:
    """Run the paper's Table 4 on prepared slices: SE, discriminator and fusion, each on and off."""
    from multiad_med.evaluation.ablate import ablate as run_ablation
    from multiad_med.evaluation.detectors import Settings
    from multiad_med.evaluation.outcomes import FAILED

    outcomes = run_ablation(
        stores,
        output,
        settings=Settings(
            preset, teacher_weights=teacher_weights, epochs=epochs, learning_rate=learning_rate
        ),
        adversarial_weight=adversarial_weight,
        seeds=seeds or [0],
        part=part,
        device=device,
    )
    _print_outcomes(output / "ablation.md", failed=any(o.note.startswith(FAILED) for o in outcomes))


@app.command()
def compare(
    stores: Annotated[list[Path], typer.Argument(help="Folders that `multiad prepare` wrote.")],
    output: Annotated[Path, typer.Option(help="Folder for outcomes and comparison.md.")],
    methods: Annotated[
        list[str] | None, typer.Option("--method", help="Repeat for several; all by default.")
    ] = None,
    teacher: Annotated[str, typer.Option(help="Architecture.")] = "efficientnet_lite0",
    teacher_weights: Annotated[str, typer.Option(help="imagenet, or a file.")] = "imagenet",
    epochs: Annotated[int, typer.Option(help="Of methods that train by epochs.")] = 20,
    bundle: Annotated[
        str | None,
        typer.Option(help="Whose choices for its domain Multi-AD makes; none by default."),
    ] = None,
    seeds: Annotated[list[int] | None, typer.Option("--seed", help="Repeat for several.")] = None,
    part: Annotated[str, typer.Option(help="all, development, report.")] = "all",
    files: Annotated[
        list[str] | None,
        typer.Option("--file", help="METHOD.NAME=PATH, such as dinomaly.weights=dinov2.pth."),
    ] = None,
    device: Annotated[str, typer.Option(help="Such as cpu or cuda:0.")] = "cpu",
) -> None:
    """Train and test Multi-AD, its presets and its peers on the same slices (needs the extra peers)."""
    from multiad_med.evaluation.compare import METHODS, parse_files
    from multiad_med.evaluation.compare import compare as run_comparison
    from multiad_med.evaluation.outcomes import FAILED

    outcomes = run_comparison(
        stores,
        output,
        methods=methods or METHODS,
        seeds=seeds or [0],
        teacher=teacher,
        teacher_weights=teacher_weights,
        epochs=epochs,
        bundle=bundle,
        part=part,
        device=device,
        files=parse_files(files or []),
    )
    _print_outcomes(
        output / "comparison.md", failed=any(o.note.startswith(FAILED) for o in outcomes)
    )


@app.command()
def view(
    study: Annotated[Path, typer.Argument(help="NIfTI, folder of a DICOM series, or picture.")],
    anomaly_map: Annotated[
        Path, typer.Argument(metavar="MAP", help="Its map, as a bundle's inference wrote it.")
    ],
    output: Annotated[Path, typer.Option(help="Folder for montage.png and viewer.html.")],
    window: Annotated[
        str | None, typer.Option(help="Of a CT: abdomen (default), liver, lung, brain, bone.")
    ] = None,
    bscans: Annotated[bool, typer.Option("--bscans", help="The study is an OCT volume.")] = False,
) -> None:
    """Show a study under its anomaly map: a montage, and a page that needs no network."""
    from multiad_med.viewing import view as view_study

    for path in view_study(study, anomaly_map, output, window=window, bscans=bscans):
        typer.echo(path)


@app.command()
def dicom(
    series: Annotated[Path, typer.Argument(help="Folder of one series, or a multi-frame file.")],
    anomaly_map: Annotated[
        Path, typer.Argument(metavar="MAP", help="NIfTI map that inference made from the series.")
    ],
    scores: Annotated[Path, typer.Option(help="JSON that inference wrote beside the map.")],
    output: Annotated[Path, typer.Option(help="New folder for the DICOM files.")],
    kinds: Annotated[
        list[str] | None,
        typer.Option("--kind", help="seg, pm, overlay, sr; repeat for several, all by default."),
    ] = None,
    segments: Annotated[str, typer.Option(help="Of the segmentation: bands or binary.")] = "bands",
) -> None:
    """Write a study's map and scores as DICOM, for a PACS (needs the extra dicom)."""
    from multiad_med.io.dicom_results import DicomKind, Segments, write_dicom_results
    from multiad_med.utils.json_files import read_json

    if not set(kinds or []) <= set(DicomKind):
        raise typer.BadParameter(f"--kind is one of {[str(kind) for kind in DicomKind]}.")
    if segments not in list(Segments):
        raise typer.BadParameter(f"--segments is one of {[str(name) for name in Segments]}.")
    files = write_dicom_results(
        source=series,
        anomaly_map=anomaly_map,
        scores=read_json(scores),
        output_dir=output,
        kinds={DicomKind(kind) for kind in kinds or DicomKind},
        segments=Segments(segments),
    )
    for kind, paths in files.items():
        typer.echo(
            f"{kind}: {len(paths)} file(s)" if paths else f"{kind}: none, nothing is flagged"
        )


@app.command()
def serve(
    source: Annotated[str, typer.Argument(help="Folder, or address of a DICOMweb server.")],
    model: Annotated[Path, typer.Option(help="model.pt of a finished training.")],
    output: Annotated[Path, typer.Option(help="Folder for results and the ledger of studies.")],
    bundle: Annotated[
        str | None, typer.Option(help="Of a model of an older version, which does not tell it.")
    ] = None,
    kinds: Annotated[
        list[str] | None,
        typer.Option(
            "--kind", help="DICOM results: seg, pm, overlay, sr, none; repeat for several."
        ),
    ] = None,
    filters: Annotated[
        list[str] | None, typer.Option("--filter", help="NAME=VALUE that series must have (QIDO).")
    ] = None,
    settings: Annotated[
        list[str] | None, typer.Option("--set", help="NAME=VALUE, an id of the bundle's config.")
    ] = None,
    settle: Annotated[float, typer.Option(help="Seconds without change: complete.")] = 30,
    interval: Annotated[float, typer.Option(help="Seconds between looks at the source.")] = 10,
    tries: Annotated[int, typer.Option(help="Until a study is given up.")] = 3,
    lease: Annotated[float, typer.Option(help="Seconds until a dead worker's study is free.")] = 60,
    limit: Annotated[float, typer.Option(help="Seconds that a study may take.")] = 3600,
    host: Annotated[str, typer.Option(help="Address of the health endpoint.")] = "127.0.0.1",
    port: Annotated[int, typer.Option(help="Port of the health endpoint; 0: any.")] = 8050,
    device: Annotated[str | None, typer.Option(help="Such as cpu or cuda:0.")] = None,
    once: Annotated[
        bool,
        typer.Option("--once", help="End when all is done; status 1 if studies failed."),
    ] = False,
) -> None:
    """Process what arrives in a folder or a PACS, and bring the results back (docs/pacs.md)."""
    from multiad_med.serving.command import dicom_kinds
    from multiad_med.serving.command import serve as run_service

    run_service(
        source,
        bundle=bundle,
        model=model,
        output=output,
        kinds=dicom_kinds(kinds),
        filters=filters or [],
        settings=settings or [],
        settle=settle,
        interval=interval,
        tries=tries,
        lease=lease,
        limit=limit,
        host=host,
        port=port,
        device=device,
        once=once,
    )


@app.command("cross-calibrate")
def cross_calibrate(
    data: Annotated[Path, typer.Argument(help="What the model was trained on: folder, datalist.")],
    model: Annotated[Path, typer.Option(help="model.pt of a finished training.")],
    output: Annotated[Path, typer.Option(help="Folder for the folds and the new model.pt.")],
    folds: Annotated[int, typer.Option(help="How many models are trained.")] = 4,
    settings: Annotated[
        list[str] | None,
        typer.Option("--set", help="NAME=VALUE that the training was given, such as image_glob."),
    ] = None,
) -> None:
    """Set a model's verdicts from its training subjects, where few are held out.

    Each fold trains a model on the other subjects and scores its own. The p-values are approximate.
    """
    from multiad_med.cross_calibration import cross_calibrate as run
    from multiad_med.utils.settings import parse_settings

    target = run(model, data, output, folds=folds, **parse_settings(settings or []))
    typer.echo(f"model with verdicts from {folds} folds: {target}")


@app.command()
def convert(
    model: Annotated[Path, typer.Argument(help="Model file of an older version.")],
    bundle: Annotated[str, typer.Option(help="Bundle that it was trained with.")],
    output: Annotated[Path, typer.Option(help="New model file.")],
    settings: Annotated[
        list[str] | None,
        typer.Option("--set", help="NAME=VALUE that it was trained with, such as size=128."),
    ] = None,
) -> None:
    """Give a model of an older version a card, so that it tells what it is."""
    from multiad_med.convert import convert_model
    from multiad_med.utils.settings import parse_settings

    convert_model(model, output, bundle=bundle, settings=parse_settings(settings or []))
    typer.echo(f"{output}: it gives maps, and no verdicts until it is calibrated again.")


@app.command()
def bundle(
    name: Annotated[str, typer.Argument(help="Name of a bundle, such as multiad_brain_mri.")],
) -> None:
    """Print the folder of a bundle, for `python -m monai.bundle`."""
    from multiad_med.resources import bundle_path

    typer.echo(bundle_path(name))


label_app = typer.Typer(help="Serve bundles to 3D Slicer and OHIF by MONAI Label.")
app.add_typer(label_app, name="label", no_args_is_help=True)


@label_app.command("init")
def label_init(
    folder: Annotated[Path, typer.Argument(help="Folder of the app.")],
    bundles: Annotated[
        list[str] | None,
        typer.Option(
            "--bundle",
            help="NAME or NAME=MODEL.PT; repeat for several. All with a model by default.",
        ),
    ] = None,
) -> None:
    """Make a folder into a MONAI Label app, or add bundles to it."""
    from multiad_med.label.command import init

    for name, model in init(folder, bundles or []).items():
        typer.echo(f"{name}: {model or 'no model yet; it can be trained only'}")


@label_app.command("start")
def label_start(
    folder: Annotated[Path, typer.Argument(help="Folder that `multiad label init` made.")],
    studies: Annotated[str, typer.Argument(help="Folder of studies, or URL of a DICOMweb server.")],
    host: Annotated[str, typer.Option(help="Address to listen on.")] = "127.0.0.1",
    port: Annotated[int, typer.Option(help="Port to listen on.")] = 8000,
) -> None:
    """Print MONAI Label's own command for the app, and run it."""
    from multiad_med.label.command import start

    start(folder, studies, host=host, port=port)
