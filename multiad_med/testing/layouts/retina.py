"""RESC: OCT volumes as layered B-scans."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

import numpy as np

from multiad_med.testing.layouts.shapes import save_image

RESC_GREYS = {"PED": 128, "SRF": 191, "REA": 255}
RESC_VOLUME = "P{:04d}_MacularCube512x128_{}-1-2014_9-32-13_{}_sn{}_cube_z"


def bscan(
    size: tuple[int, int], rng: np.random.Generator, *, lesion: bool
) -> tuple[np.ndarray, np.ndarray]:
    """Return a layered B-scan (height, width), and its lesion mask in RESC's grey values."""
    height, width = size
    y, x = np.meshgrid(np.linspace(-1, 1, height), np.linspace(-1, 1, width), indexing="ij")
    depth = y - 0.15 * x**2 + 0.02 * rng.standard_normal()
    image = np.full(size, 20.0)
    for low, high, value in ((-0.4, -0.2, 150), (-0.2, 0.1, 90), (0.1, 0.2, 200), (0.2, 0.5, 120)):
        image[(depth >= low) & (depth < high)] = value
    image += 12 * rng.standard_normal(size)
    label = np.zeros(size, np.uint8)
    if lesion:
        for name, centre in (("REA", -0.1), ("SRF", 0.08), ("PED", 0.2)):
            inside = ((depth - centre) / 0.07) ** 2 + ((x - rng.uniform(-0.3, 0.3)) / 0.3) ** 2 < 1
            image[inside], label[inside] = 35, RESC_GREYS[name]
    return image.clip(0, 255), label


def make_resc(
    folder: Path,
    *,
    rng: np.random.Generator,
    volumes: Mapping[str, int] | None = None,
    bscans: int = 8,
    size: tuple[int, int] = (64, 32),
) -> None:
    """Write RESC as the challenge published it: BMP B-scans, lesions in a volume's second half.

    Args:
        volumes: number by split: ``training``, ``validation`` and ``test`` (which has no labels).
        size: height and width of a B-scan (published: 1024 and 512).
    """
    number = 0
    for split, count in (volumes or {"training": 3, "validation": 2}).items():
        root = folder / f"Edema_{split}set"
        for _ in range(count):
            name = RESC_VOLUME.format(number, 1 + number % 12, ("OD", "OS")[number % 2], number)
            number += 1
            for scan in range(1, bscans + 1):
                image, label = bscan(size, rng, lesion=scan > bscans // 2)
                save_image(root / f"original_images/{name}.img/{scan}.bmp", image)
                if split != "test":
                    save_image(root / f"label_images/{name}_labelMark/{scan}.bmp", label)


def make_pnet(
    folder: Path,
    *,
    rng: np.random.Generator,
    volumes: int = 2,
    bscans: int = 6,
    size: tuple[int, int] = (64, 32),
) -> None:
    """Write RESC in P-Net's arrangement: normal B-scans apart from those with lesions."""
    for number in range(volumes):
        for scan in range(bscans):
            save_image(
                folder / f"train/images/case{number}/{scan}.png", bscan(size, rng, lesion=False)[0]
            )
            lesion = scan >= bscans // 2
            image, label = bscan(size, rng, lesion=lesion)
            case = f"case{number + volumes}/{scan}.png"
            save_image(folder / f"test/{'images' if lesion else 'normal_images'}/{case}", image)
            if lesion:
                save_image(folder / f"test/lesion_mask/{case}", label)
