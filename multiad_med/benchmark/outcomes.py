"""One method trained and tested on one set, in a process of its own, with its costs."""

from __future__ import annotations

import hashlib
import re
import resource
import statistics
import sys
import time
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass, field
from functools import partial
from pathlib import Path
from typing import Any

import torch
from tqdm import tqdm

from multiad_med.benchmark.detectors import Detector, UnavailableError
from multiad_med.data import SliceCache, file_sha256
from multiad_med.data.datalist import CACHE_NAME
from multiad_med.evaluation.named_metrics import named_metrics
from multiad_med.evaluation.parts import Part
from multiad_med.evaluation.pixel_level import PixelMetrics
from multiad_med.evaluation.predictions import predicted_cases
from multiad_med.utils import run_in_process
from multiad_med.utils.atomic import write_json
from multiad_med.utils.json_files import read_json

__all__ = ["FAILED", "Job", "Outcome", "run_job", "run_jobs"]

FAILED = "failed"
"""How the note begins for a run whose process died."""

_WARM_UPS, _TIMED = 3, 15


@dataclass
class Outcome:
    """What a method reached on one category of one set with one seed.

    Attributes:
        method, dataset, category, seed: which run.
        metrics: by the names of :data:`METRICS`, NaN (None in JSON) where undefined.
        scores: ``(study, subject, slice, abnormal, score)`` of every slice, for paired comparison.
        train_seconds: of :meth:`Detector.fit`, calibration included.
        latency_ms: median of one slice at a time.
        peak_mb: largest resident memory of the process up to the first predictions (training or
            memory bank included, metrics not), on a GPU the largest allocated there.
        size_mb: see :class:`Detector`.
        note: why there are no metrics.
    """

    method: str
    dataset: str
    category: str
    seed: int
    metrics: dict[str, float | None] = field(default_factory=dict)
    scores: list[tuple[str, str, int, bool, float]] = field(default_factory=list)
    train_seconds: float | None = None
    latency_ms: float | None = None
    peak_mb: float | None = None
    size_mb: float | None = None
    note: str = ""


@dataclass(frozen=True)
class Job:
    """A run to be made.

    Attributes:
        method: name in the tables.
        build: makes the detector in the new process; picklable. May raise :class:`UnavailableError`.
        cache: folder of prepared slices.
        category: of the cache; empty for all.
        seed: of the training.
        part: of the test split.
        device: where it runs.
        variants: names of further tests of the trained detector, and what changes it before each,
            called with the detector and the held-out slices; picklable.
    """

    method: str
    build: Callable[[], Detector]
    cache: str
    category: str
    seed: int
    part: Part = Part.ALL
    device: str = "cpu"
    variants: tuple[tuple[str, Callable[[Any, SliceCache], None]], ...] = ()

    @property
    def identifier(self) -> str:
        """Name of its file, which differs by settings and data."""
        build = self.build
        given = (build.args, build.keywords) if isinstance(build, partial) else build.__qualname__
        files = (Path(self.cache) / name for name in ("index.csv", CACHE_NAME))
        about = f"{given!r} {self.device} {[file_sha256(file) for file in files]}"
        digest = hashlib.sha256(about.encode()).hexdigest()[:10]
        names = [Path(self.cache).name, self.category, self.method, str(self.part)]
        names += [f"seed{self.seed}", digest]
        return "-".join(re.sub(r"[^\w.]+", "_", name) for name in names if name)


def _latency(detector: Detector, cache: SliceCache, device: torch.device) -> float:
    """Return the median milliseconds for one slice."""
    item = cache[0]
    image, foreground = item["image"][None], item["foreground"][None]
    times = []
    for number in range(_WARM_UPS + _TIMED):
        start = time.perf_counter()
        detector.predict(image, foreground)
        if device.type == "cuda":
            torch.cuda.synchronize(device)
        if number >= _WARM_UPS:
            times.append(time.perf_counter() - start)
    return 1000 * statistics.median(times)


def _peak_mb(device: torch.device) -> float:
    if device.type == "cuda":
        return torch.cuda.max_memory_allocated(device) / 1e6
    unit = 1 if sys.platform == "darwin" else 1024
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * unit / 1e6


def _without_metrics(job: Job, note: str) -> list[Outcome]:
    return [
        Outcome(name, Path(job.cache).name, job.category, job.seed, note=note)
        for name in (job.method, *(name for name, _ in job.variants))
    ]


def execute(job: Job) -> list[Outcome]:
    """Train, test, and time; return one outcome for the detector and for each variant."""
    dataset = Path(job.cache).name
    categories = [job.category] if job.category else None
    training, held_out = (
        SliceCache(job.cache, split=split, categories=categories)
        for split in ("training", "validation")
    )
    device = torch.device(job.device)
    try:
        detector = job.build()
        start = time.perf_counter()
        detector.fit(training, held_out, seed=job.seed)
    except UnavailableError as error:
        return _without_metrics(job, str(error))
    if device.type == "cuda":
        torch.cuda.synchronize(device)
    seconds = time.perf_counter() - start
    outcomes = []
    for name, change in ((job.method, None), *job.variants):
        if change is not None:
            change(detector, held_out)
        latency = _latency(detector, held_out, device)
        peak = _peak_mb(device)
        pixels = PixelMetrics()
        scores: list[tuple[str, str, int, bool, float]] = []
        for case in predicted_cases(detector, job.cache, part=job.part, categories=categories):
            pixels.update(case)
            scores += [
                (case.study, case.subject, int(n), bool(a), float(s))
                for n, a, s in zip(case.numbers, case.abnormal, case.scores, strict=True)
            ]
        outcomes.append(
            Outcome(
                method=name,
                dataset=dataset,
                category=job.category,
                seed=job.seed,
                metrics=named_metrics(
                    torch.tensor([score for *_, score in scores]),
                    torch.tensor([abnormal for *_, abnormal, _ in scores]),
                    pixels.metrics(),
                ),
                scores=scores,
                train_seconds=seconds,
                latency_ms=latency,
                peak_mb=peak,
                size_mb=detector.size_mb,
            )
        )
    return outcomes


def _child(job: Job, path: Path, threads: int) -> None:
    torch.set_num_threads(threads)
    write_json(path, [asdict(outcome) for outcome in execute(job)])


def run_job(job: Job, folder: str | Path) -> list[Outcome]:
    """Run a job in a process of its own, which ends with this one, and keep its outcome.

    A job whose outcome is in the folder already is not run again, so that an interrupted
    comparison goes on where it stopped. Another setting, cache or index makes another job. What could
    not be run is tried again.

    Args:
        job: what to run.
        folder: for the outcomes, one JSON per job.

    Returns:
        Its outcomes; one with a note where the process ended without any.
    """
    path = Path(folder) / f"{job.identifier}.json"
    if not path.is_file():
        status = run_in_process(_child, job, path, torch.get_num_threads())
        if not path.is_file():
            note = f"{FAILED} with exit status {status}; its error is printed above"
            return _without_metrics(job, note)
    content = read_json(path)
    if any(item["note"] for item in content):
        path.unlink()
    return [Outcome(**{**item, "scores": [tuple(s) for s in item["scores"]]}) for item in content]


def run_jobs(jobs: Sequence[Job], folder: str | Path) -> list[Outcome]:
    """Run jobs one after the other by :func:`run_job`, with a progress bar; return their outcomes."""
    outcomes: list[Outcome] = []
    with tqdm(jobs, unit="run") as bar:
        for job in bar:
            place = f"{Path(job.cache).name} {job.category}".strip()
            bar.set_description(f"{job.method} on {place}, seed {job.seed}")
            outcomes += run_job(job, folder)
    return outcomes
