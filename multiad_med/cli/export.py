"""``multiad export``: a trained network, or prepared slices, for other tools."""

from __future__ import annotations

import shlex
from pathlib import Path
from typing import Annotated, Any

import typer
from typer.core import TyperGroup

from multiad_med.cli.choices import Bits, Layout
from multiad_med.cli.commands import DefaultCommands, new_app
from multiad_med.cli.messages import show_log
from multiad_med.cli.options import (
    Images,
    Settings,
    check_model,
    output_option,
    parse_checked,
)


class _Export(DefaultCommands):
    """Take the old ``multiad export SLICES --target FOLDER`` too."""

    default = "slices"

    def parse_args(self, ctx: Any, args: list[str]) -> list[str]:
        if any(word.partition("=")[0] == "--target" for word in args):
            return super().parse_args(ctx, args)
        return TyperGroup.parse_args(self, ctx, args)


app = new_app(cls=_Export, help="Write a trained network, or prepared slices, for other tools.")

TrainedModel = Annotated[Path, typer.Argument(help="The model.pt of a finished training.")]
Size = Annotated[
    int | None,
    typer.Option(
        min=1, help="Side of the images, for a model of an older version that does not name it."
    ),
]


def _example(kind: str, end: str) -> str:
    return f"Example: multiad export {kind} run/model.pt -o run/model.{end}"


@app.command(epilog=_example("onnx", "onnx"), no_args_is_help=True)
def onnx(
    model: TrainedModel,
    output: Annotated[Path, output_option("The ONNX file.")],
    size: Size = None,
) -> None:
    """Write the network as ONNX, at the model's size and for any batch. It needs the extra export."""
    check_model(model)
    from multiad_med.inference.export_model import export_onnx

    typer.echo(export_onnx(model, output, size=size))


@app.command(epilog=_example("openvino", "xml"), no_args_is_help=True)
def openvino(
    model: TrainedModel,
    output: Annotated[Path, output_option("The .xml file; a .bin is written beside it.")],
    size: Size = None,
    int8: Annotated[
        Path | None,
        typer.Option(
            metavar="GOOD",
            help="Write it in INT8, with thresholds from normal studies that the model has not seen.",
        ),
    ] = None,
    images: Images = None,
    settings: Settings = None,
) -> None:
    """Write the network for OpenVINO, which is faster on a CPU. It needs the extra export.

    With --int8 a model file is written beside it, whose thresholds are set for it, and nothing at all
    where it would find less than the model. It needs the extra int8.
    """
    check_model(model)
    if int8 is None:
        if images is not None or settings:
            raise typer.BadParameter("--images and --set are for --int8.")
        from multiad_med.inference.export_model import export_openvino

        typer.echo(export_openvino(model, output, size=size))
        return

    show_log()

    from multiad_med.cli.data import check_data
    from multiad_med.networks import bundle_of_model
    from multiad_med.recalibration import calibration_text, export_int8

    if size is not None:
        raise typer.BadParameter(
            "--int8 takes the size of the model's own images; leave --size out."
        )
    bundle = bundle_of_model(model)
    check_data(int8, bundle.removeprefix("multiad_"))
    chosen = parse_checked(settings, bundle=bundle, config="train.json", image_glob=images)
    target = export_int8(model, output, int8, **chosen)
    typer.echo(calibration_text(target))
    typer.echo(f"{output} is the network in INT8, and {target} the model with its thresholds.")
    typer.echo(f"Next: multiad predict NEW -m {shlex.quote(str(target))} -o MAPS")


@app.command(epilog=_example("torchscript", "ts"), no_args_is_help=True)
def torchscript(
    model: TrainedModel,
    output: Annotated[Path, output_option("The TorchScript file.")],
) -> None:
    """Write the network as TorchScript, for any size and batch."""
    check_model(model)
    from multiad_med.inference.export_model import export_torchscript

    typer.echo(export_torchscript(model, output))


@app.command(epilog="Example: multiad export slices slices/ -o png/", no_args_is_help=True)
def slices(
    cache: Annotated[Path, typer.Argument(help="Folder that `multiad prepare` wrote.")],
    output: Annotated[Path | None, output_option("New folder for the PNG files.")] = None,
    target: Annotated[Path | None, typer.Option("--target", hidden=True)] = None,
    layout: Annotated[Layout, typer.Option(help="How the folder is laid out.")] = Layout.MVTEC,
    bits: Annotated[
        Bits, typer.Option(help="Bits of a grey value; 16 is for one channel.")
    ] = Bits.EIGHT,
) -> None:
    """Write prepared slices as a tree of PNG files."""
    output = output or target
    if output is None:
        raise typer.BadParameter("Give --output a new folder.")
    from multiad_med.preparation import ExportLayout, export_png

    count = export_png(cache, output, layout=ExportLayout(layout), bits=int(bits))
    typer.echo(f"{count} slices written to {output}")
