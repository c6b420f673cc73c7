"""How fast volumes are prepared and slices are read, beside what decompression alone costs.

    python benchmarks/preparation.py [--studies 8] [--skip-ct]

Writes BraTS-size (240 x 240 x 155, int16, image and segmentation) and LiTS-size (512 x 512 x 400)
studies of smooth anatomy and noise into a temporary folder, gzipped as the data sets are, and prints:

- seconds of ``gzip -dc`` on the same files, of ISA-L in this process, and of the preparation, each
  per study and on one core; and slices per second;
- the preparation with two processes, beside one;
- slices per second of the training loader from the prepared cache;
- seconds to fit 130 CT slices into 256², by us and by MONAI's ``Resize`` with its antialiasing;
- peak memory of the preparation of 5 and of 50 small studies.
"""

from __future__ import annotations

import argparse
import os
import shutil
import subprocess
import sys
import tempfile
import time
from pathlib import Path

os.environ.setdefault("OMP_NUM_THREADS", "1")

import nibabel as nib
import numpy as np
import torch
from isal import isal_zlib
from monai.data import MetaTensor
from monai.transforms import Resize
from scipy.ndimage import gaussian_filter, zoom
from torch.utils.data import DataLoader
from torch.utils.flop_counter import FlopCounterMode

from multiad_med.data import SliceCache, read_study
from multiad_med.networks import ResNetFeatures
from multiad_med.preparation import load_recipe, prepare
from multiad_med.preparation.prepare_study import StudyPreparation
from multiad_med.transforms import FitInPlane

# An assumption, not a measurement: an H100 has 990 TFLOP/s (dense bf16) on paper, and trains ResNet-50
# at some 3,000 images/s of 24.5 GFLOP each, which is 75 TFLOP/s. Twice that, for the larger
# matrices of the wide network, is taken for WideResNet-50-2.
H100_TFLOPS = 150.0


def smooth(shape: tuple[int, int, int], rng: np.random.Generator) -> np.ndarray:
    coarse = gaussian_filter(rng.standard_normal([max(2, n // 8) for n in shape]), 1)
    fine = zoom(coarse, [n / c for n, c in zip(shape, coarse.shape, strict=True)], order=1)
    return fine / fine.std()


def ellipsoid(shape: tuple[int, int, int], radius: tuple[float, ...], centre: tuple[float, ...]):
    axes = np.ogrid[tuple(slice(-1, 1, complex(0, n)) for n in shape)]
    return sum(((a - c) / r) ** 2 for a, r, c in zip(axes, radius, centre, strict=True)) < 1


def make_brats(folder: Path, count: int) -> None:
    rng = np.random.default_rng(0)
    shape = (240, 240, 155)
    affine = np.array([[-1, 0, 0, 0], [0, -1, 0, 239], [0, 0, 1, 0], [0, 0, 0, 1.0]])
    # As large a brain as the real ones: 18 % of the volume.
    brain = ellipsoid(shape, (0.62, 0.76, 0.72), (0, 0, 0))
    volume = (brain * (400 + 60 * smooth(shape, rng) + 12 * rng.standard_normal(shape))).clip(0)
    seg = ellipsoid(shape, (0.15, 0.15, 0.15), (0.2, 0.1, 0.4)).astype(np.uint8) * 2
    for index in range(count):
        case = folder / f"BraTS2021_{index:05d}"
        case.mkdir(parents=True)
        name = f"{case.name}_flair.nii.gz"
        if index == 0:
            nib.save(nib.Nifti1Image(volume.astype(np.int16), affine), case / name)
            nib.save(nib.Nifti1Image(seg, affine), case / f"{case.name}_seg.nii.gz")
            first = case
        else:
            shutil.copy(first / f"{first.name}_flair.nii.gz", case / name)
            shutil.copy(first / f"{first.name}_seg.nii.gz", case / f"{case.name}_seg.nii.gz")


def make_lits(folder: Path, count: int) -> None:
    rng = np.random.default_rng(0)
    shape = (512, 512, 400)
    affine = np.diag([0.8, 0.8, 1.5, 1])
    body = ellipsoid(shape, (0.8, 0.6, 3), (0, 0, 0))
    liver = ellipsoid(shape, (0.35, 0.3, 0.35), (-0.3, 0, 0.1))
    lesion = ellipsoid(shape, (0.08, 0.08, 0.08), (-0.3, 0, 0.2))
    noise = np.tile(rng.standard_normal((512, 512, 40)), (1, 1, 10))
    hounsfield = np.where(body, 40 + 30 * smooth(shape, rng) + 60 * liver, -1000) + 12 * noise
    folder.mkdir(parents=True)
    image = nib.Nifti1Image(hounsfield.round().astype(np.int16), affine)
    seg = nib.Nifti1Image(liver.astype(np.uint8) + lesion, affine)
    nib.save(image, folder / "volume-0.nii.gz")
    nib.save(seg, folder / "segmentation-0.nii.gz")
    for index in range(1, count):
        shutil.copy(folder / "volume-0.nii.gz", folder / f"volume-{index}.nii.gz")
        shutil.copy(folder / "segmentation-0.nii.gz", folder / f"segmentation-{index}.nii.gz")


def timed(function, repeats: int = 3) -> float:
    best = float("inf")
    for _ in range(repeats):
        start = time.perf_counter()
        function()
        best = min(best, time.perf_counter() - start)
    return best


def gzip_seconds(files: list[Path]) -> float:
    def run() -> None:
        subprocess.run(["gzip", "-dc", *map(str, files)], stdout=subprocess.DEVNULL, check=True)

    return timed(run)


def isal_seconds(files: list[Path]) -> float:
    return timed(lambda: [len(isal_zlib.decompress(f.read_bytes(), 31)) for f in files])


def study_seconds(recipe, source: Path, *, workers: int, studies: int) -> tuple[float, int]:
    """Wall time per study once the workers have started, and the slices of a study."""
    items = [item for part in recipe.splits(source).values() for item in part]
    repeated = [{**items[0], "split": "test", "study": f"s{i}"} for i in range(studies + workers)]
    with tempfile.TemporaryDirectory() as target:
        work = StudyPreparation(recipe, source, Path(target), repeated)
        times = []
        for outcome in DataLoader(work, batch_size=None, num_workers=workers, prefetch_factor=1):
            if outcome[1] != "written":
                raise RuntimeError(outcome[2])
            times.append(time.perf_counter())
        slices = len(read_study(next(Path(target).rglob("*.safetensors")))["slices"])
    return (times[-1] - times[workers - 1]) / studies, slices


def report(name: str, recipe_name: str, source: Path, files: list[Path], studies: int) -> None:
    recipe = load_recipe(recipe_name)
    limit, isal = gzip_seconds(files), isal_seconds(files)
    one, slices = study_seconds(recipe, source, workers=1, studies=studies)
    two, _ = study_seconds(recipe, source, workers=2, studies=studies)
    print(
        f"{name}: {sum(f.stat().st_size for f in files) / 1e6:.1f} MB gzipped, {slices} slices kept"
    )
    print(
        f"  gzip -dc {limit:.3f} s, ISA-L {isal:.3f} s, preparation {one:.3f} s a study, one core"
    )
    print(
        f"  {slices / one:.0f} slices/s; {limit / one:.0%} of the limit by gzip -dc, "
        f"{isal / one:.0%} of that by ISA-L; two processes {slices / two:.0f} slices/s "
        f"(x {one / two:.2f})"
    )


def loader(folder: Path) -> None:
    cache = SliceCache(folder)
    for workers in (0, 1, 2):
        batches = DataLoader(cache, batch_size=32, shuffle=True, num_workers=workers)
        rates = []
        for _ in range(3):
            start, count = None, 0
            for batch in batches:
                if start is None:  # the first batch waits for the workers to start
                    start = time.perf_counter()
                    continue
                count += len(batch["image"])
            rates.append(count / (time.perf_counter() - (start or 0)))
        print(f"  loader, {workers} workers: {max(rates):.0f} slices/s")
    with FlopCounterMode(display=False) as counter:
        ResNetFeatures("wide_resnet50_2", output_stride=32)(torch.zeros(1, 3, 256, 256))
    # The teacher's forward, and the student's forward and (twice as dear) backward.
    gflop = 4 * counter.get_total_flops() / 1e9
    need = H100_TFLOPS * 1e3 / gflop
    print(
        f"  WRN-50-2 on an H100, estimated: {need:.0f} slices/s "
        f"({H100_TFLOPS:.0f} TFLOP/s assumed, {gflop:.0f} GFLOP a slice)"
    )


def resizing() -> None:
    torch.set_num_threads(1)
    volume = MetaTensor(torch.rand(1, 512, 512, 130))
    ours = timed(lambda: FitInPlane(256)(volume))
    monai = timed(lambda: Resize((256, 256, 130), mode="trilinear", anti_aliasing=True)(volume), 1)
    print(f"fitting 130 slices of 512²: {ours:.2f} s, MONAI's Resize {monai:.2f} s")


def peak_memory(count: int) -> float:
    """Peak resident memory in MB of a process that prepares ``count`` BraTS-size studies."""
    code = (
        "import sys, resource, tempfile; from pathlib import Path;"
        "sys.path.insert(0, sys.argv[2]);"
        "from preparation import make_brats;"
        "from multiad_med.preparation import load_recipe, prepare;"
        "t = tempfile.mkdtemp(); s = Path(t) / 's'; make_brats(s, int(sys.argv[1]))\n"
        "import os\n"
        "pid = os.fork()\n"
        "if pid == 0:\n"
        "    prepare(load_recipe('brats2021'), s, Path(t) / 'o', workers=0, progress=False)\n"
        "    print(resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024, flush=True)\n"
        "    os._exit(0)\n"
        "os.waitpid(pid, 0)\n"
        "import shutil; shutil.rmtree(t)\n"
    )
    result = subprocess.run(
        [sys.executable, "-c", code, str(count), str(Path(__file__).parent)],
        capture_output=True,
        text=True,
        check=True,
    )
    return float(result.stdout.split()[-1])


def main() -> None:
    parser = argparse.ArgumentParser()
    parser.add_argument("--studies", type=int, default=12)
    parser.add_argument("--skip-ct", action="store_true")
    parser.add_argument("--skip-memory", action="store_true")
    options = parser.parse_args()
    with tempfile.TemporaryDirectory() as folder:
        brats = Path(folder) / "brats"
        make_brats(brats, options.studies)
        report(
            "BraTS size", "brats2021", brats,
            sorted((brats / "BraTS2021_00000").iterdir()), options.studies,
        )  # fmt: skip
        prepare(load_recipe("brats2021"), brats, Path(folder) / "store", progress=False)
        loader(Path(folder) / "store")
        if not options.skip_ct:
            lits = Path(folder) / "lits"
            count = 4
            make_lits(lits, count)
            files = [lits / "volume-0.nii.gz", lits / "segmentation-0.nii.gz"]
            report("LiTS size", "lits", lits, files, options.studies)
    resizing()
    if not options.skip_memory:
        few, many = peak_memory(5), peak_memory(50)
        print(
            f"peak memory: 5 studies {few:.0f} MB, 50 studies {many:.0f} MB ({many / few - 1:+.1%})"
        )


if __name__ == "__main__":
    main()
