"""Small caches of prepared slices, and detectors that cost nothing."""

from __future__ import annotations

import hashlib
import json
from dataclasses import dataclass
from pathlib import Path

import torch
from torch import Tensor
from torch.utils.data import Dataset

from multiad_med.data import write_study
from multiad_med.data.slice_cache import index_rows, study_path, write_index
from multiad_med.evaluation import Case

SIZE = 32


def blob(size: int = SIZE, *, at: tuple[int, int] = (8, 8), side: int = 6) -> Tensor:
    """Return a square lesion ``(size, size)``."""
    mask = torch.zeros(size, size, dtype=torch.bool)
    mask[at[0] : at[0] + side, at[1] : at[1] + side] = True
    return mask


def make_cache(
    folder: Path,
    *,
    categories: tuple[str, ...] = ("screw",),
    normal: int = 4,
    defects: int = 4,
    training: int = 6,
    kinds: tuple[str, ...] = ("scratch", "crack"),
) -> Path:
    """Write a cache of images, one slice each; a defect is a bright square. Return its folder."""
    generator = torch.Generator().manual_seed(0)
    items = []
    for category in categories:
        plan = [("training", "good")] * training + [("validation", "good")] * 2
        plan += [("test", "good")] * normal
        plan += [("test", kinds[i % len(kinds)]) for i in range(defects)]
        for number, (split, kind) in enumerate(plan):
            image = 0.3 + 0.1 * torch.rand(1, 1, SIZE, SIZE, generator=generator)
            defect = kind != "good"
            prepared = {
                "image": image,
                "slices": torch.tensor([0]),
                "state": torch.tensor([int(defect)]),
            }
            if defect:
                mask = blob(at=(number % 20, 5))
                image[0, 0][mask] = 0.9
                prepared["label"] = mask[None, None].to(torch.uint8)
            study = f"{category}/{kind}/{number:03d}"
            path = study_path(folder, study)
            path.parent.mkdir(parents=True, exist_ok=True)
            digest = hashlib.sha256(study.encode()).hexdigest()
            write_study(path, prepared, bits=8, about={"source_sha256": digest})
            items.append(
                {
                    "split": split,
                    "subject": study,
                    "study": study,
                    "category": category,
                    "kind": kind,
                }
            )
    write_index(folder / "index.csv", index_rows(folder, items))
    about = {
        "bits": 8,
        "channels": 1,
        "size": [SIZE, SIZE],
        "upright": True,
        "recipe": "images",
        "recipe_sha256": "0",
        "settings": {},
        "split_sha256": "0",
    }
    (folder / "cache.json").write_text(json.dumps(about))
    return folder


@dataclass
class Brightness:
    """A detector whose map is the image itself."""

    name: str = "brightness"
    sign: float = 1.0

    def fit(self, training: Dataset, held_out: Dataset, *, seed: int) -> None:
        """Look at every item once, as a training would."""
        self.seen = [training[i]["image"].shape for i in range(len(training))]  # type: ignore[arg-type]

    def predict(self, images: Tensor, foreground: Tensor) -> tuple[Tensor, Tensor]:
        """Return the image, and its maximum."""
        maps = self.sign * images.mean(dim=1, keepdim=True)
        return maps, maps.amax(dim=(1, 2, 3))

    @property
    def size_mb(self) -> float:
        """0: nothing is stored."""
        return 0.0


def volume_case(
    name: str,
    *,
    lesion: bool,
    shift: float = 0.0,
    spacing: tuple[float, float, float] = (1.0, 2.0, 3.0),
    seed: int = 0,
) -> Case:
    """Return a volume of 6 slices; lesions of 6x6x2 voxels have map values 0.8, the rest below 0.4."""
    generator = torch.Generator().manual_seed(seed)
    maps = 0.4 * torch.rand(6, SIZE, SIZE, generator=generator) + shift
    label = torch.zeros(6, SIZE, SIZE, dtype=torch.bool)
    if lesion:
        label[2:4] = blob()
        maps[label] = 0.8 + shift
    return Case(
        study=name,
        subject=name.partition("_")[0],
        image=torch.rand(6, SIZE, SIZE, generator=generator),
        anomaly_map=maps,
        label=label,
        foreground=torch.ones(6, SIZE, SIZE, dtype=torch.bool),
        numbers=torch.arange(10, 16),
        scores=maps.flatten(1).amax(dim=1),
        abnormal=label.flatten(1).any(dim=1),
        spacing=spacing,
    )
