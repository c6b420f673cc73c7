"""``multiad prepare --ray``: studies of a data set are prepared by the workers of a cluster."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from typing import TYPE_CHECKING, Any

import torch

from multiad_med.preparation.prepare_study import StudyPreparation
from multiad_med.scale.cluster import ray_cluster
from multiad_med.scale.pipeline import RETRIES, TASKS, data_context
from multiad_med.utils.memory import keep_freed_memory

if TYPE_CHECKING:
    import pyarrow as pa

__all__ = ["PrepareStudies", "spread_by_ray"]

_LOST = (
    "its worker was ended several times, as happens when memory runs out. The same command does it "
    "again."
)


class PrepareStudies:
    """Prepares one study after another; an actor, whose transforms stay in its memory."""

    def __init__(self, preparation: StudyPreparation) -> None:
        torch.set_num_threads(1)
        keep_freed_memory()
        self.preparation = preparation

    def __call__(self, table: pa.Table) -> pa.Table:
        """Return index, outcome and message of the studies whose indices are given."""
        import pyarrow as pa

        told = [self.preparation[index] for index in table["index"].to_pylist()]
        columns = zip(("index", "outcome", "message"), zip(*told, strict=True), strict=True)
        return pa.table({name: list(values) for name, values in columns})


def spread_by_ray(
    address: str,
) -> Callable[[StudyPreparation], Iterator[tuple[int, str, str]]]:
    """Return what :func:`multiad_med.preparation.prepare` takes as ``spread``.

    Args:
        address: see :func:`multiad_med.scale.cluster.ray_cluster`.
    """

    def outcomes(preparation: StudyPreparation) -> Iterator[tuple[int, str, str]]:
        count = len(preparation)
        missing = set(range(count))
        with ray_cluster(address):
            for start in range(0, count, TASKS):
                portion = range(start, min(start + TASKS, count))
                for table in _prepared(preparation, portion):
                    for row in table.to_pylist():
                        missing.discard(row["index"])
                        yield row["index"], row["outcome"], row["message"]
        for index in sorted(missing):
            yield index, "failed", f"{preparation.items[index]['study']}: {_LOST}"

    return outcomes


def _prepared(preparation: StudyPreparation, indices: Sequence[int]) -> Iterator[pa.Table]:
    """Prepare the studies of one data set."""
    import pyarrow as pa
    import ray
    from ray.data import ActorPoolStrategy

    actors = max(1, min(len(indices), int(ray.cluster_resources().get("CPU", 1))))
    with data_context():
        blocks: Any = [ray.put(pa.table({"index": [index]})) for index in indices]
        dataset: Any = ray.data.from_arrow_refs(blocks).map_batches(
            PrepareStudies,
            fn_constructor_args=(preparation,),
            compute=ActorPoolStrategy(size=actors),
            batch_format="pyarrow",
            batch_size=1,
            num_cpus=1,
            ray_remote_args_fn=lambda: {"max_task_retries": RETRIES},
        )
    yield from dataset.iter_batches(batch_format="pyarrow", batch_size=None)
