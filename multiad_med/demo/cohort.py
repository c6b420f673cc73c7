"""A cohort with real anatomy and no download: the MNI152 brain made into subjects and lesions.

The MNI152 template (T1, 1 mm, skull-stripped) ships inside the package nilearn. A subject is the
template after a random smooth deformation, bias field, contrast and noise, with slices 5 mm thick
as in clinical routine. Test subjects carry a lesion of a known kind, size and mask.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from itertools import cycle
from pathlib import Path
from typing import Any

import nibabel as nib
import numpy as np
from monai.transforms import (
    Compose,
    RandAdjustContrast,
    RandAffine,
    RandGaussianNoise,
    RandSmoothDeform,
    RandSmoothFieldAdjustIntensity,
)
from numpy.typing import NDArray
from scipy.ndimage import distance_transform_edt, gaussian_filter, map_coordinates
from torch.utils.data import DataLoader, Dataset
from tqdm import tqdm

from multiad_med.data import DATALIST_NAME
from multiad_med.utils import FileError, end_with_parent, processors, terminable, worker_errors
from multiad_med.utils.memory import keep_freed_memory
from multiad_med.utils.nifti_files import save_nifti

__all__ = ["LESIONS", "Cohort", "make_cohort"]

SLICE_MM = 5
_GREY = 0.72  # grey matter's intensity in the template, white matter's being near 1

Volume = NDArray[np.float32]
Mask = NDArray[np.bool_]


@dataclass(frozen=True)
class Cohort:
    """How many subjects of each split a cohort has.

    Of 25 held-out ones six fit, and 19 set the thresholds: as many as a verdict at 5 % needs.
    """

    training: int = 24
    validation: int = 25
    healthy_test: int = 2
    lesion_test: int = 6


def _blob(
    shape: tuple[int, ...], centre: NDArray[np.float64], radius: float, rng: np.random.Generator
) -> Mask:
    """Return an irregular ball: voxels nearer than a radius that varies smoothly by a third."""
    grid = np.stack(np.meshgrid(*(np.arange(n) for n in shape), indexing="ij"), axis=-1)
    distance = np.linalg.norm(grid - centre, axis=-1)
    bumps = gaussian_filter(rng.standard_normal(shape), radius / 2)
    return distance + bumps / bumps.std() * radius / 6 < radius


def _soft(mask: Mask, sigma: float = 1.0) -> NDArray[np.float64]:
    return gaussian_filter(mask.astype(float), sigma)


def _mass(volume: Volume, mask: Mask, rng: np.random.Generator) -> NDArray[np.float64]:
    weight = _soft(mask)
    return volume * (1 - weight) + weight * (
        1.45 + 0.1 * gaussian_filter(rng.standard_normal(volume.shape), 1.5)
    )


def _cavity(volume: Volume, mask: Mask, rng: np.random.Generator) -> NDArray[np.float64]:
    return volume * (1 - 0.8 * _soft(mask))


def _ring(volume: Volume, mask: Mask, rng: np.random.Generator) -> NDArray[np.float64]:
    depth = distance_transform_edt(mask)
    rim = _soft(mask & (depth <= max(3.0, 0.3 * depth.max())), 0.7)
    core = _soft(mask, 0.7) - rim
    return volume * (1 - rim - core.clip(0)) + 1.5 * rim + 0.35 * core.clip(0)


def _oedema(volume: Volume, mask: Mask, rng: np.random.Generator) -> NDArray[np.float64]:
    return volume * (1 - 0.4 * _soft(mask, 3.0))


def _swelling(volume: Volume, mask: Mask, rng: np.random.Generator) -> NDArray[np.float64]:
    """Push tissue outward from the lesion's centre, which is grey and featureless."""
    centre = np.argwhere(mask).mean(axis=0)
    radius = (mask.sum() * 3 / (4 * np.pi)) ** (1 / 3)
    grid = np.stack(np.meshgrid(*(np.arange(n) for n in volume.shape), indexing="ij")).astype(float)
    offset = grid - centre[:, None, None, None]
    distance = np.linalg.norm(offset, axis=0)
    pull = 0.7 * np.exp(-((distance / (1.6 * radius)) ** 2))
    pushed = map_coordinates(volume, grid - offset * pull, order=1, mode="nearest")
    weight = _soft(mask)
    return pushed * (1 - weight) + weight * _GREY


LESIONS: dict[str, Callable[[Volume, Mask, np.random.Generator], NDArray[np.float64]]] = {
    "mass": _mass,
    "cavity": _cavity,
    "ring": _ring,
    "oedema": _oedema,
    "swelling": _swelling,
    "spots": _mass,
}
"""Kinds of lesion, in the order in which the test subjects get them."""

_RADII_MM = {"mass": 14, "cavity": 11, "ring": 16, "oedema": 18, "swelling": 13, "spots": 6}


def _add_lesion(volume: Volume, kind: str, rng: np.random.Generator) -> tuple[Volume, Mask]:
    """Put a lesion of a kind into the depth of the brain (1 mm voxels)."""
    radius = _RADII_MM[kind]
    depth = 2 * distance_transform_edt(volume[::2, ::2, ::2] > 0.1)
    places = 2 * np.argwhere(depth > radius + 2)
    # The cerebrum's middle heights, where every subject has large slices.
    low, high = 0.4 * volume.shape[2], 0.75 * volume.shape[2]
    places = places[(places[:, 2] > low) & (places[:, 2] < high)]
    result, mask = volume.copy(), np.zeros(volume.shape, dtype=bool)
    for centre in rng.choice(places, size=4 if kind == "spots" else 1):
        start = np.maximum(centre - 3 * radius, 0)
        box = tuple(slice(a, b) for a, b in zip(start, centre + 3 * radius, strict=True))
        blob = _blob(result[box].shape, (centre - start).astype(float), radius, rng)
        blob &= result[box] > 0.1
        result[box] = LESIONS[kind](result[box], blob, rng)
        mask[box] |= blob
    return result, mask


def _variation(shape: tuple[int, ...], seed: int) -> tuple[Compose, Compose]:
    """Return the random anatomy and the random acquisition of one subject."""
    anatomy = Compose(
        [
            RandAffine(
                prob=1,
                rotate_range=(0.06, 0.06, 0.06),
                scale_range=(0.05, 0.05, 0.05),
                translate_range=(3, 3, 3),
                padding_mode="zeros",
            ),
            RandSmoothDeform(
                spatial_size=shape,
                rand_size=(7, 7, 7),
                pad=2,
                field_mode="trilinear",
                prob=1,
                def_range=0.06,
                grid_mode="bilinear",
            ),
        ]
    )
    acquisition = Compose(
        [
            RandSmoothFieldAdjustIntensity(
                spatial_size=shape,
                rand_size=(4, 4, 4),
                mode="trilinear",
                prob=1,
                gamma=(0.85, 1.15),
            ),
            RandAdjustContrast(prob=1, gamma=(0.85, 1.15)),
            RandGaussianNoise(prob=1, std=0.02, sample_std=False),
        ]
    )
    anatomy.set_random_state(seed)
    acquisition.set_random_state(seed + 1)
    return anatomy, acquisition


def _subject(
    template: Volume, kind: str | None, seed: int
) -> tuple[NDArray[np.int16], NDArray[np.uint8]]:
    anatomy, acquisition = _variation(template.shape, seed)
    volume = np.asarray(anatomy(template[None]))[0]
    mask = np.zeros(volume.shape, dtype=bool)
    if kind is not None:
        volume, mask = _add_lesion(volume, kind, np.random.default_rng(seed))
    brain = volume > 0.05
    volume = np.asarray(acquisition(volume[None].clip(0)))[0] * brain
    depth = volume.shape[2] // SLICE_MM * SLICE_MM
    thick = volume[..., :depth].reshape(*volume.shape[:2], -1, SLICE_MM).mean(axis=-1)
    thick_mask = mask[..., :depth].reshape(*volume.shape[:2], -1, SLICE_MM).mean(axis=-1) >= 0.5
    return (thick.clip(0) * 1000).astype(np.int16), thick_mask.astype(np.uint8)


@dataclass(frozen=True)
class _Planned:
    """A subject to be made.

    Attributes:
        name: of its files.
        split: which it belongs to; those of ``test`` have a mask.
        kind: of its lesion, if it has one.
        seed: of its random choices.
    """

    name: str
    split: str
    kind: str | None
    seed: int

    @property
    def item(self) -> dict[str, str]:
        """The subject in the datalist."""
        item = {"image": f"images/{self.name}.nii.gz", "subject": self.name}
        return {**item, "label": f"labels/{self.name}.nii.gz"} if self.split == "test" else item


def _plan(cohort: Cohort, seed: int) -> list[_Planned]:
    names: list[tuple[str, str, str | None]] = []
    names += [(f"train{i:02d}", "training", None) for i in range(cohort.training)]
    names += [(f"valid{i:02d}", "validation", None) for i in range(cohort.validation)]
    names += [(f"test{i:02d}_healthy", "test", None) for i in range(cohort.healthy_test)]
    for number, kind in zip(range(cohort.lesion_test), cycle(LESIONS), strict=False):
        names.append((f"test{cohort.healthy_test + number:02d}_{kind}", "test", kind))
    return [_Planned(*about, seed * 1000 + 2 * number) for number, about in enumerate(names)]


class _Subjects(Dataset[_Planned]):
    """Writes a subject where it is asked for; processes share the work."""

    def __init__(self, folder: Path, plan: Sequence[_Planned]) -> None:
        from nilearn.datasets import load_mni152_template

        image = load_mni152_template(resolution=1)
        template = np.asarray(image.dataobj, dtype=np.float32)
        self.template = template / np.quantile(template[template > 0], 0.95)
        self.affine = image.affine @ np.diag([1, 1, SLICE_MM, 1])
        self.affine[:3, 3] = image.affine[:3, :3] @ [0, 0, (SLICE_MM - 1) / 2] + image.affine[:3, 3]
        self.folder = folder
        self.plan = plan

    def __len__(self) -> int:
        return len(self.plan)

    def __getitem__(self, index: int) -> _Planned:
        """Write a subject's files."""
        planned = self.plan[index]
        volume, mask = _subject(self.template, planned.kind, planned.seed)
        for key, array in (("image", volume), ("label", mask)):
            if key in planned.item:
                nifti = nib.Nifti1Image(array, self.affine)
                nifti.header.set_xyzt_units("mm")
                save_nifti(nifti, self.folder / planned.item[key])
        return planned


def make_cohort(folder: str | Path, *, cohort: Cohort | None = None, seed: int = 0) -> Path:
    """Write a cohort's volumes, lesion masks and datalist; the same for the same seed.

    All processors work on it, each on a subject of its own.

    Args:
        folder: receives ``images/*.nii.gz``, ``labels/*.nii.gz`` and ``datalist.json``.
        cohort: numbers of subjects.
        seed: of every random choice.

    Returns:
        The folder.

    Raises:
        FileError: when a process that makes subjects was ended from outside.
    """
    folder = Path(folder)
    for sub in ("images", "labels"):
        (folder / sub).mkdir(parents=True, exist_ok=True)
    plan = _plan(cohort or Cohort(), seed)
    loader = DataLoader(
        _Subjects(folder, plan),
        batch_size=None,
        num_workers=min(processors(), len(plan)),
        collate_fn=_as_it_is,
        worker_init_fn=_begin,
    )
    splits: dict[str, list[dict[str, str]]] = {"training": [], "validation": [], "test": []}
    with terminable(), worker_errors(FileError, "Give it more memory, or fewer processors."):
        for planned in tqdm(loader, desc="making subjects", unit="subject", total=len(plan)):
            splits[planned.split].append(planned.item)
    content = {"name": "MNI152 demonstration cohort", "seed": seed, **splits}
    (folder / DATALIST_NAME).write_text(json.dumps(content, indent=2), encoding="utf-8")
    return folder


def _begin(worker: int) -> None:
    end_with_parent()
    keep_freed_memory()


def _as_it_is(planned: Any) -> Any:
    return planned
