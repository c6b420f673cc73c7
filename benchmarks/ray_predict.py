"""``multiad predict --ray local`` beside the plain loop, and the driver's memory.

    python benchmarks/ray_predict.py speed [--studies 100] [--shape 240 240 155] [--size 256]
    python benchmarks/ray_predict.py stages [--studies 4] [--shape 240 240 155] [--size 256]
    python benchmarks/ray_predict.py memory [--studies 200 2000] [--shape 64 64 64] [--size 64]

``speed`` makes copies of a synthetic volume, and maps them by Ray with two actors of one thread, by Ray
with one such actor, by the same with everything on one processor core, and by the plain loop with two
threads: each in a process of its own, start-up and summary included, which are told apart too.
``stages`` runs read, network and write in one process with one thread, and prints the processor time of
each, which other programs on the machine change little. ``memory`` maps volumes with a network that
costs nothing, and prints the largest resident memory of the driver. All use weights that were not
trained.
"""

from __future__ import annotations

import argparse
import json
import os
import resource
import shutil
import subprocess
import sys
import tempfile
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np

MODES = ("ray 2", "ray 1", "ray 1 core", "plain")


def write_studies(folder: Path, count: int, shape: Sequence[int]) -> None:
    """Copies of one head in a black volume, 1 mm voxels, as BraTS has it."""
    from multiad_med.testing import head, write_nifti

    first = write_nifti(folder / "s0000.nii.gz", head(np.random.default_rng(0), tuple(shape)))
    for number in range(1, count):
        shutil.copyfile(first, folder / f"s{number:04}.nii.gz")


def run(mode: str, folder: Path, size: int) -> dict[str, Any]:
    """Map the studies of a folder in this process; seconds and memory."""
    import torch

    start = time.perf_counter()
    out = folder / mode.replace(" ", "-")
    if mode == "plain":
        from multiad_med.detector import AnomalyDetector
        from multiad_med.utils.memory import keep_freed_memory

        torch.set_num_threads(2)
        keep_freed_memory()  # as the command does
        detector = AnomalyDetector.load(folder / "model.pt", device="cpu", size=size)
        loaded = time.perf_counter()
        results = list(detector.predict_folder(folder / "in", output=out))
        return {"start": loaded - start, "total": time.perf_counter() - start, "n": len(results)}
    from multiad_med.scale import predict as predicting
    from multiad_med.scale.stages import MapStudies

    class FreeMaps(MapStudies):
        """A network that costs nothing."""

        def __init__(self, *args: Any, **kwargs: Any) -> None:
            super().__init__(*args, **kwargs)
            self.network = lambda x: x[:, :1] * 0 + 0.3  # type: ignore[assignment]

    if mode == "memory":
        predicting.MapStudies = FreeMaps  # type: ignore[misc]
    times = {}
    collected = predicting.collected

    def timed(*args: Any) -> Any:
        rows = collected(*args)
        times["mapped"] = time.perf_counter() - start
        return rows

    predicting.collected = timed
    rows = predicting.predict_studies(
        folder / "in",
        folder / "model.pt",
        output=out,
        device="cpu",
        actors=2 if mode in ("ray 2", "memory") else 1,
        size=size,
    )
    assert all(row["status"] == "done" for row in rows), rows
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024
    total = time.perf_counter() - start
    return {"total": total, "summary": total - times["mapped"], "n": len(rows), "MiB": peak}


def stages(out: Path) -> dict[str, float]:
    """Mean seconds of each stage of a study."""
    import pyarrow.parquet as pq

    table = pq.read_table(out / "scores").to_pylist()
    names = ("read_seconds", "network_seconds", "write_seconds")
    return {name: float(np.mean([row[name] for row in table])) for name in names}


def written(out: Path, count: int) -> float:
    """MiB of maps, masks and scores of a study."""
    files = [f.stat().st_size for f in out.rglob("*_anomaly*") if f.suffix in (".gz", ".json")]
    return sum(files) / count / 2**20


def processor_time(folder: Path, size: int) -> dict[str, float]:
    """Seconds of a processor that each stage takes of a study."""
    import torch

    from multiad_med.inference.predictor import StudyPredictor
    from multiad_med.scale.sources import list_studies
    from multiad_med.scale.stages import MapStudies, ReadStudies, StudyRun, WriteStudies
    from multiad_med.scale.travelling_study import as_table
    from multiad_med.utils.memory import keep_freed_memory

    torch.set_num_threads(1)
    keep_freed_memory()
    model, out = folder / "model.pt", folder / "out"
    predictor = StudyPredictor(model, device="cpu", size=size)
    listed = list_studies(str(folder / "in"), predictor, output=out)
    run = StudyRun.of(predictor, source=listed.source, output=out)
    network = MapStudies(**predictor.arguments, device="cpu")
    steps = {"read": ReadStudies(run), "network": network, "write": WriteStudies(run)}
    studies, spent = run.travelling(listed.studies), dict.fromkeys(steps, 0.0)
    for first in range(0, len(studies), 2):
        table: Any = as_table(studies[first : first + 2])
        for name, step in steps.items():
            start = time.process_time()
            table = step(table)
            spent[name] += (time.process_time() - start) / len(studies)
    return spent


def in_process(mode: str, folder: Path, size: int) -> dict[str, Any]:
    """Run a mode in a new process."""
    words = [sys.executable, __file__, "run", "--mode", mode, "--folder", str(folder)]
    words += ["--size", str(size)]
    if mode == "ray 1 core":
        words = ["taskset", "-c", "0", *words]
    threads = "2" if mode == "plain" else "1"
    done = subprocess.run(
        words,
        check=True,
        stdout=subprocess.PIPE,
        text=True,
        env={**os.environ, "OMP_NUM_THREADS": threads},
    )
    told: dict[str, Any] = json.loads(done.stdout.splitlines()[-1])
    return told


def main() -> None:
    """Make the studies, run all modes, print a table."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawTextHelpFormatter
    )
    parser.add_argument("what", choices=["speed", "stages", "memory", "run"])
    parser.add_argument("--studies", type=int, nargs="+")
    parser.add_argument("--shape", type=int, nargs=3)
    parser.add_argument("--size", type=int)
    parser.add_argument("--modes", nargs="+", default=list(MODES))
    parser.add_argument("--mode", help=argparse.SUPPRESS)
    parser.add_argument("--folder", type=Path, help=argparse.SUPPRESS)
    options = parser.parse_args()
    if options.what == "run":
        print(json.dumps(run(options.mode, options.folder, options.size)))
        return
    from multiad_med.testing.cohorts import write_fake_model

    speed, small = options.what == "speed", options.what == "memory"
    size = options.size or (64 if small else 256)
    shape = options.shape or ([64, 64, 64] if small else [240, 240, 155])
    counts = {"speed": [100], "stages": [4], "memory": [200, 2000]}[options.what]
    for count in options.studies or counts:
        with tempfile.TemporaryDirectory() as temporary:
            folder = Path(temporary)
            (folder / "in").mkdir()
            write_fake_model("multiad_brain_mri", folder / "model.pt")
            write_studies(folder / "in", count, shape)
            if options.what == "stages":
                told = processor_time(folder, size)
                print("processor seconds a study:", {k: round(v, 2) for k, v in told.items()})
                read = (folder / "in/s0000.nii.gz").stat().st_size / 2**20
                print(
                    f"{read:.2f} MiB to read, {written(folder / 'out', count):.2f} MiB to write a study"
                )
                continue
            for mode in options.modes if speed else ["memory"]:
                told = in_process(mode, folder, size)
                out = folder / mode.replace(" ", "-")
                per_study = told["total"] / count
                found = " ".join(f"{key} {value:.1f}" for key, value in told.items())
                print(f"{count} studies, {mode}: {per_study:.2f} s a study; {found}", flush=True)
                if mode != "plain":
                    print("   ", {k: round(v, 3) for k, v in stages(out).items()}, flush=True)
                print(f"    {written(out, count):.2f} MiB of results a study", flush=True)
                shutil.rmtree(out)


if __name__ == "__main__":
    main()
