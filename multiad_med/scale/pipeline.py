"""Stages as operators of Ray Data: tasks read, actors hold the network, tasks write."""

from __future__ import annotations

import logging
import warnings
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

from multiad_med.scale.travelling_study import TravellingStudy, as_table

if TYPE_CHECKING:
    import pyarrow as pa

__all__ = ["RETRIES", "TASKS", "Stages", "data_context", "run_stages"]

RETRIES = 3  # of a task whose worker was killed; a study that ends its worker is given up then
_HALF = 0.5  # of a core: each has a network actor and a task that reads or writes, in turns
_QUEUED_PER_CPU = 1 << 30  # bytes that wait between stages
TASKS = 5000  # of one data set: the command keeps 50 KB of each, and Ray sends notes of all around


@dataclass(frozen=True)
class Stages:
    """What is done with a table of studies, one after the other, and how widely.

    Attributes:
        read: a task on a processor core.
        network: class of the actors.
        network_arguments: of its constructor.
        write: a task on a processor core; none where the caller writes.
        per_task: studies of one task; one table from stage to stage, so that a repeated task gives the
            same number of tables.
        actors: how many hold the network.
        gpus: of each of them.
    """

    read: Callable[[pa.Table], pa.Table]
    network: type
    network_arguments: Mapping[str, Any] = field(default_factory=dict)
    write: Callable[[pa.Table], pa.Table] | None = None
    per_task: int = 1
    actors: int = 1
    gpus: int = 0


@contextmanager
def data_context(*, in_order: bool = False) -> Iterator[None]:
    """Have Ray Data's settings for studies inside the context, in which data sets are made.

    Little is queued between stages, and what fails for good does not stop the rest.

    Args:
        in_order: whether results come in the order of the studies.
    """
    import ray
    from ray.data import DataContext, ExecutionResources

    logging.getLogger("ray.data").setLevel(logging.ERROR)
    context = DataContext.get_current().copy()
    context.target_max_block_size = None
    context.max_errored_blocks = -1
    context.enable_progress_bars = False
    context.execution_options.preserve_order = in_order
    cpus = ray.cluster_resources().get("CPU", 1)
    context.execution_options.resource_limits = ExecutionResources(
        object_store_memory=cpus * _QUEUED_PER_CPU
    )
    with DataContext.current(context), warnings.catch_warnings():
        # Until Ray 2.64, before which the extra ends, there is no other way to say how often.
        warnings.filterwarnings("ignore", "`ray_remote_args")
        yield


def run_stages(studies: Sequence[TravellingStudy], stages: Stages) -> Iterator[pa.Table]:
    """Run studies through the stages on the connected Ray; memory stays flat.

    A task or actor that dies is started again. What fails for good is left out of the results. A long
    run is one data set after another, each with actors of its own.

    Args:
        studies: to be done.
        stages: see there.

    Yields:
        What the last stage returns, as it comes; what is not written, in order.
    """
    portion = TASKS * stages.per_task
    for start in range(0, len(studies), portion):
        yield from _run_portion(studies[start : start + portion], stages)


def _run_portion(studies: Sequence[TravellingStudy], stages: Stages) -> Iterator[pa.Table]:
    import ray
    from ray.data import ActorPoolStrategy

    size = stages.per_task
    chunks = (studies[start : start + size] for start in range(0, len(studies), size))
    blocks: Any = [ray.put(as_table(chunk)) for chunk in chunks]
    tables: dict[str, Any] = {"batch_format": "pyarrow", "batch_size": size, "num_cpus": _HALF}
    tasks = tables | {"ray_remote_args_fn": lambda: {"max_retries": RETRIES}}
    with data_context(in_order=stages.write is None):
        dataset: Any = ray.data.from_arrow_refs(blocks).map_batches(stages.read, **tasks)
        dataset = dataset.map_batches(
            stages.network,
            fn_constructor_kwargs=dict(stages.network_arguments),
            compute=ActorPoolStrategy(size=stages.actors),
            num_gpus=stages.gpus or None,
            ray_remote_args_fn=lambda: {"max_task_retries": RETRIES},
            **tables,
        )
        if stages.write is not None:
            dataset = dataset.map_batches(stages.write, **tasks)
    yield from dataset.iter_batches(batch_format="pyarrow", batch_size=None)
