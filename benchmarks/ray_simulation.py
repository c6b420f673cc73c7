"""A simulated archive through the real Ray pipeline, beside a model of throughput and cost.

    python benchmarks/ray_simulation.py run [--studies 100000] [--cores 4] [--seconds READ NETWORK WRITE]
    python benchmarks/ray_simulation.py model [--seconds READ NETWORK WRITE] [--megabytes IN OUT]

``run`` sends rows through the same operators as ``multiad predict --ray``: stages that sleep as long as
the measured ones, divided by 1,000, and rows as large as the measured ones, divided by 1,000. It first
measures what the driver and Ray's own processes cost with stages that do nothing, predicts the run by the
model, and prints both. ``model`` prints throughput and cost for 1 to 1,000 nodes.
"""

from __future__ import annotations

import argparse
import os
import resource
import tempfile
import time
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import Any

import numpy as np

SECONDS = (0.3, 3.9, 0.5)
"""Of a core for a study of BraTS size, by stage; `benchmarks/ray_predict.py stages` measures them."""

MEGABYTES = (4.5, 10.5)
"""Read and written of a study."""

PREPARED = 139 * 256 * 256 * 5
"""Bytes between the stages: slices that count, in float32, and their foreground."""

SHRUNK = 1000


class Sleep:
    """A task that sleeps for its studies, instead of reading or writing."""

    def __init__(self, seconds: float) -> None:
        self.seconds = seconds

    def __call__(self, table: Any) -> Any:
        """Return the studies after their time."""
        time.sleep(self.seconds * table.num_rows)
        return table


class SleepingReader(Sleep):
    """A task that sleeps for its studies, and returns as many bytes as prepared ones, shrunk."""

    def __call__(self, table: Any) -> Any:
        """Return the studies with content."""
        from multiad_med.scale.travelling_study import as_table, studies_of

        studies = studies_of(super().__call__(table))
        for study in studies:
            study.content = {"image": np.zeros(PREPARED // SHRUNK, np.uint8)}
        return as_table(studies)


class SleepingNetwork(Sleep):
    """An actor that sleeps for its studies."""


class SleepingWriter(Sleep):
    """A task that sleeps for its studies, and returns their rows of scores."""

    def __call__(self, table: Any) -> Any:
        """Return the rows."""
        from multiad_med.scale.score_files import score_table
        from multiad_med.scale.travelling_study import studies_of

        super().__call__(table)
        return score_table(
            [
                {"index": s.index, "image": s.owner, "status": "done", "score": 0.5, "seconds": 0.0}
                for s in studies_of(table)
            ]
        )


def pipeline(
    count: int, seconds: tuple[float, float, float], *, actors: int, per_task: int
) -> tuple[float, float]:
    """Send rows through the pipeline; return studies/s of the later half, and seconds in all."""
    from multiad_med.scale.pipeline import Stages, run_stages
    from multiad_med.scale.predict import collected
    from multiad_med.scale.sources import ListedStudy
    from multiad_med.scale.travelling_study import TravellingStudy

    studies = [TravellingStudy(i, ListedStudy({"image": f"s{i}"}), f"s{i}") for i in range(count)]
    stages = Stages(
        read=SleepingReader(seconds[0]),
        network=SleepingNetwork,
        network_arguments={"seconds": seconds[1]},
        write=SleepingWriter(seconds[2]),
        per_task=per_task,
        actors=actors,
    )
    start, times = time.perf_counter(), []

    def watched(tables: Iterable[Any]) -> Iterator[Any]:
        for table in tables:
            times.append(time.perf_counter() - start)
            yield table

    with tempfile.TemporaryDirectory() as folder:
        rows = collected(watched(run_stages(studies, stages)), studies, Path(folder))
    assert len({row["image"] for row in rows if row["status"] == "done"}) == count
    half = len(times) // 2
    rate = (len(times) - 1 - half) * per_task / (times[-1] - times[half])
    return rate, time.perf_counter() - start


def run(options: argparse.Namespace) -> None:
    """Measure the driver, predict, run, compare."""
    import ray

    # As multiad_med.scale.cluster has it; there may be more simulated cores than true ones.
    os.environ.setdefault("RAY_idle_worker_killing_time_threshold_ms", "600000")
    os.environ.setdefault("RAY_task_events_report_interval_ms", "0")
    os.environ.setdefault("RAY_USAGE_STATS_ENABLED", "0")
    ray.init(address="local", num_cpus=options.cores, include_dashboard=False, log_to_driver=False)
    settings = {"actors": options.cores, "per_task": options.per_task}
    pipeline(2 * options.cores * options.per_task, (0, 0, 0), **settings)  # workers are started
    few = 4000  # fewer are done before all workers have started
    rate, took = pipeline(few, (0, 0, 0), **settings)
    start = max(0.0, took - few / rate)
    print(f"stages that do nothing: {rate:.0f} studies/s, {start:.1f} s to start", flush=True)
    short = tuple(one / SHRUNK for one in options.seconds)
    # Actors and tasks sleep at the same time: the slower of the two roads decides.
    busy = max(short[1], short[0] + short[2]) / options.cores
    least, most = (
        start + options.studies * each for each in (max(busy, 1 / rate), busy + 1 / rate)
    )
    steady, took = pipeline(options.studies, short, **settings)  # type: ignore[arg-type]
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024
    print(
        f"{options.studies} studies, {options.cores} simulated cores, {options.per_task} a task: "
        f"predicted {least:.0f} s (Ray's work beside the stages') to {most:.0f} s (after it), "
        f"took {took:.0f} s, later half {steady:.0f} studies/s, driver {peak:.0f} MiB"
    )
    ray.shutdown()


def model(options: argparse.Namespace) -> None:
    """Print a Markdown table of throughput and cost by nodes."""
    core_seconds = sum(options.seconds)
    print(
        "| nodes | cores' limit | storage's limit | driver's limit | studies/s | bottleneck | "
        "10⁶ studies | cost |"
    )
    print("|---|---|---|---|---|---|---|---|")
    for nodes in (1, 3, 10, 30, 100, 300, 1000):
        limits = {
            "cores": nodes * options.cores / core_seconds,
            "storage": options.storage * 1000 / sum(options.megabytes),
            "driver": options.driver,
        }
        slowest = min(limits, key=lambda name: limits[name])
        rate = limits[slowest]
        hours = 1e6 / rate / 3600
        told = " | ".join(f"{limits[name]:.1f}" for name in ("cores", "storage", "driver"))
        cost = hours * nodes * options.price
        print(f"| {nodes} | {told} | {rate:.1f} | {slowest} | {hours:.1f} h | {cost:,.0f} |")


def main() -> None:
    """Run the simulation or print the model."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawTextHelpFormatter
    )
    parser.add_argument("what", choices=["run", "model"])
    parser.add_argument("--studies", type=int, default=100_000)
    parser.add_argument("--seconds", type=float, nargs=3, default=SECONDS, help="of each stage")
    parser.add_argument("--megabytes", type=float, nargs=2, default=MEGABYTES, help="in and out")
    parser.add_argument("--cores", type=int, help="simulated ones, 4; or of a node, 16")
    parser.add_argument("--per-task", type=int, default=2, help="studies")
    parser.add_argument("--driver", type=float, default=67.0, help="studies/s that `run` measured")
    parser.add_argument("--storage", type=float, default=1.25, help="GB/s that all nodes share")
    parser.add_argument("--price", type=float, default=0.8, help="of a node's hour")
    options = parser.parse_args()
    options.cores = options.cores or (4 if options.what == "run" else 16)
    (run if options.what == "run" else model)(options)


if __name__ == "__main__":
    main()
