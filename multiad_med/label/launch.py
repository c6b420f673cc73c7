"""``multiad label init`` and ``multiad label start``."""

from __future__ import annotations

import importlib
import importlib.util
import os
import shlex
import shutil
import socket
import sys
from collections.abc import Sequence
from importlib.metadata import distributions
from pathlib import Path
from typing import NoReturn

from multiad_med.resources import bundle_path
from multiad_med.utils.errors import MultiADError

__all__ = ["BUNDLES", "LabelError", "check_torchvision", "init", "server_command", "start"]

BUNDLES = ("multiad_brain_mri", "multiad_liver_ct", "multiad_retina_oct")
"""Bundles of studies, which MONAI Label can serve."""

_WORK = shutil.ignore_patterns("models", "eval", "training", "__pycache__")


class LabelError(MultiADError, ValueError):
    """The app cannot be made or started."""


def _chosen(bundles: Sequence[str]) -> dict[str, Path | None]:
    """Return the model of each bundle named as ``NAME`` or ``NAME=MODEL``; None where it has none."""
    chosen: dict[str, Path | None] = {}
    for text in bundles or BUNDLES:
        name, _, given = text.partition("=")
        if name not in BUNDLES:
            raise LabelError(f"MONAI Label can serve the bundles {list(BUNDLES)}, not {name!r}.")
        own = bundle_path(name) / "models" / "model.pt"
        model = Path(given).expanduser() if given else own if own.is_file() else None
        if bundles or model is not None:
            chosen[name] = model
    if not chosen:
        raise LabelError("No bundle has a model of its own: name one as --bundle NAME=MODEL.PT.")
    return chosen


def _check_folder(folder: Path) -> None:
    """Refuse ``#`` in the app's path: MONAI Label puts it into configs, where ``#`` is a separator."""
    if "#" in str(folder.absolute()):
        raise LabelError(
            f"{folder.absolute()}: MONAI Label cannot work in a folder with '#' in its path; choose "
            "another."
        )


def check_torchvision() -> None:
    """Check that torchvision, which MONAI Label imports, is of torch's version and build.

    Nothing is checked where MONAI Label is not installed.

    Raises:
        LabelError: when it cannot be imported or lacks its operators, with the command that mends it.
    """
    if importlib.util.find_spec("monailabel") is None:
        return
    import torch

    try:
        importlib.import_module("torchvision")
        reason = "" if hasattr(torch.ops.torchvision, "nms") else "its operators are missing"
    except (ImportError, OSError, RuntimeError) as error:
        reason = " ".join(str(error).split())
    if reason:
        found = [p.version for p in distributions() if p.metadata["Name"] == "torchvision"]
        raise LabelError(
            f"torchvision {'/'.join(found) or '(not installed)'} does not fit torch {torch.__version__}: "
            f"{reason.rstrip('.')}. Install both from one index: pip install --force-reinstall "
            "-c constraints-label.txt torch torchvision. If torch came from an index of its own, as "
            "builds for the CPU do, add that with --index-url."
        )


def init(folder: Path, bundles: Sequence[str] = ()) -> dict[str, Path | None]:
    """Make a folder into an app, or add bundles to it.

    Args:
        folder: of the app.
        bundles: ``NAME`` or ``NAME=MODEL.PT`` each; none means all that have a model of their own.

    Returns:
        The model of each bundle that was added; None for one that has to be trained first.

    Raises:
        LabelError: on an unknown bundle, one that is there already, a folder with ``#``, or a torchvision
            that does not fit torch.
        CardError: when a model is of another bundle.
        WeightsError: when a model file cannot be read.
        NotCalibratedError: when a model's training was not finished.
    """
    from multiad_med.card import check_calibrated
    from multiad_med.networks import bundle_of_model, open_model
    from multiad_med.utils.atomic import atomic_path

    _check_folder(folder)
    check_torchvision()
    chosen = _chosen(bundles)
    for name, model in chosen.items():
        target = folder / "model" / name
        if target.exists():
            raise LabelError(f"{target} exists; remove it to copy the bundle anew.")
        if model is not None:
            bundle_of_model(model, name)
            check_calibrated(open_model(model))
    for name, model in chosen.items():
        with atomic_path(folder / "model" / name) as temporary:
            shutil.copytree(bundle_path(name), temporary, ignore=_WORK)
            if model is not None:
                (temporary / "models").mkdir(exist_ok=True)
                shutil.copyfile(model, temporary / "models" / "model.pt")
    with atomic_path(folder / "main.py") as temporary:
        shutil.copyfile(Path(__file__).with_name("main.py"), temporary)
    return chosen


def server_command(folder: Path, studies: str, *, host: str, port: int) -> list[str]:
    """Return MONAI Label's own command that serves an app."""
    return [
        *(sys.executable, "-m", "monailabel.main", "start_server"),
        *("--app", str(folder), "--studies", studies, "--host", host, "--port", str(port)),
        *("--uvicorn_app", "multiad_med.label.server:app"),
    ]


def start(folder: Path, studies: str, *, host: str = "127.0.0.1", port: int = 8000) -> NoReturn:
    """Print the server's command and become that process, so that signals reach the server.

    Args:
        folder: that :func:`init` made.
        studies: folder of studies, or URL of a DICOMweb server.
        host: address to listen on.
        port: TCP port.

    Raises:
        LabelError: when the folder is no app, the studies' folder is missing, MONAI Label is not
            installed or its torchvision does not fit torch, or the port is not free.
    """
    _check_folder(folder)
    if not (folder / "main.py").is_file():
        raise LabelError(f"{folder} is no app; `multiad label init {folder}` makes one.")
    if not studies.startswith(("http://", "https://")) and not Path(studies).is_dir():
        raise LabelError(f"{studies} is no folder of studies, nor the URL of a DICOMweb server.")
    if importlib.util.find_spec("monailabel") is None:
        raise LabelError(
            "MONAI Label is not installed here. In an environment of its own: "
            "PIP_CONSTRAINT=constraints-label.txt pip install 'multiad-med[label]'"
        )
    check_torchvision()
    _check_free(host, port)
    command = server_command(folder, studies, host=host, port=port)
    print(shlex.join(command), flush=True)
    # Where itkimage2segimage is, if the environment is not activated.
    path = os.pathsep.join([str(Path(sys.executable).parent), os.environ.get("PATH", "")])
    os.execve(sys.executable, command, {**os.environ, "PATH": path})


def _check_free(host: str, port: int) -> None:
    try:
        family, kind, protocol, _, address = socket.getaddrinfo(
            host, port, type=socket.SOCK_STREAM
        )[0]
        with socket.socket(family, kind, protocol) as probe:
            probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
            probe.bind(address)
    except OSError as error:
        raise LabelError(
            f"Cannot listen on {host}:{port}: {error.strerror}. Choose another with --port or --host."
        ) from error
