"""``multiad bundles``."""

from __future__ import annotations

import json
from typing import Annotated

import typer

EXAMPLE = "Example: multiad bundles brain_mri"


def bundles(
    name: Annotated[str | None, typer.Argument(help="The name of a bundle, or its domain.")] = None,
) -> None:
    """List the bundles, or print the folder of one, for `python -m monai.bundle`."""
    from multiad_med.resources import bundle_path, bundles_dir

    if name is not None:
        known = bundles_dir() / f"multiad_{name}"
        typer.echo(bundle_path(known.name if known.is_dir() else name))
        return
    for folder in sorted(p.parent for p in bundles_dir().glob("*/configs")):
        about = json.loads((folder / "configs" / "metadata.json").read_text(encoding="utf-8"))
        typer.echo(
            f"{folder.name}\n"
            f"    domain: {folder.name.removeprefix('multiad_')}\n"
            f"    takes:  {about['data_type']}; {about['image_classes']}\n"
            f"    folder: {folder}"
        )


def bundle(
    name: Annotated[str, typer.Argument(help="The name of a bundle, or its domain.")],
) -> None:
    """Print the folder of a bundle (an old spelling of `multiad bundles NAME`)."""
    bundles(name)
