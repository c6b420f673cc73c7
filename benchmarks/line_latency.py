"""How long an image of a production line waits for its verdict: p50 and p99, with a warm model.

    python benchmarks/line_latency.py [--images 100] [--model run/model.pt]

Each image passes through ``StudyPredictor``, as everything does that predicts: read, prepared, mapped,
scored, its map and scores written. One image of 256², and one of 1024² in tiles of 256². Beside them
stands the network alone on the same pixels, so that the difference is what goes around it. Without
a model, those of random weights are made; a model given is measured on images of 256² or, if it has
tiles, of 1024².
"""

from __future__ import annotations

import argparse
import os
import tempfile
import time
from collections.abc import Callable
from pathlib import Path

os.environ.setdefault("OMP_NUM_THREADS", "1")

import numpy as np
import torch
from PIL import Image

from multiad_med.inference.axial_inferer import AxialInferer
from multiad_med.inference.predictor import StudyPredictor
from multiad_med.networks import read_card
from multiad_med.testing.cohorts import write_fake_model

BUNDLE = "multiad_industrial"
WARM = 5


def make_images(folder: Path, side: int, count: int) -> list[Path]:
    folder.mkdir(parents=True)
    rng = np.random.default_rng(0)
    files = []
    for number in range(count):
        pixels = rng.normal(120, 20, (side, side, 3)).clip(0, 255).astype(np.uint8)
        files.append(folder / f"{number:04d}.png")
        Image.fromarray(pixels).save(files[-1])
    return files


def milliseconds(calls: list[Callable[[], object]]) -> np.ndarray:
    """Time of each call after the first ones."""
    times = []
    for call in calls:
        start = time.perf_counter()
        call()
        times.append(1e3 * (time.perf_counter() - start))
    return np.array(times[WARM:])


def report(model: Path, folder: Path, *, tile: int | None, count: int, made: bool) -> None:
    side = 1024 if tile else 256
    name = f"{side} x {side}" + (f", tiles of {tile}" if tile else "")
    files = make_images(folder / "in", side, count + WARM)
    given = {"size": side, "tile": tile} if made else {}
    predictor = StudyPredictor(model, device="cpu", **given)

    def judge(file: Path) -> Callable[[], object]:
        return lambda: predictor(file, source=folder / "in", output_dir=folder / "out")

    whole = milliseconds([judge(file) for file in files])
    inferer, image = AxialInferer(tile=tile), torch.rand(1, 3, side, side, 1)

    def alone() -> object:
        with torch.inference_mode():
            return inferer(image, predictor.network)

    network = milliseconds([alone] * len(files))
    for what, times in ((name, whole), ("  network alone", network)):
        p50, p99 = np.quantile(times, (0.5, 0.99))
        print(f"{what:32} p50 {p50:7.1f} ms   p99 {p99:7.1f} ms   ({len(times)} images)")


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawTextHelpFormatter
    )
    parser.add_argument("--images", type=int, default=100)
    parser.add_argument("--model", type=Path)
    options = parser.parse_args()
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        if options.model:
            card = read_card(options.model)
            tile = card.preparation.get("tile") if card else None
            report(options.model, folder / "own", tile=tile, count=options.images, made=False)
            return
        model = write_fake_model(BUNDLE, folder / "model.pt")
        for tile in (None, 256):
            report(model, folder / str(tile), tile=tile, count=options.images, made=True)


if __name__ == "__main__":
    main()
