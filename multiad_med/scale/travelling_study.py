"""A study on its way from one of Ray's workers to the next."""

from __future__ import annotations

import json
import pickle
from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from typing import TYPE_CHECKING, Any, NamedTuple

import torch
from monai.data import MetaTensor
from monai.utils import TraceKeys
from numpy.typing import NDArray

from multiad_med.data import FailureKind, StudyStatus
from multiad_med.data.datalist import first_path
from multiad_med.data.study_dataset import READING
from multiad_med.scale.sources import ListedStudy
from multiad_med.utils.tensors import plain_tensor

if TYPE_CHECKING:
    import pyarrow as pa

__all__ = ["TravellingStudy", "as_table", "failed_content", "failed_row", "studies_of"]


class _Array(NamedTuple):
    """A ``MetaTensor`` as what pickles fast."""

    values: NDArray[Any]
    meta: dict[str, Any]
    operations: list[Any]


@dataclass
class TravellingStudy:
    """A study on its way from one worker to the next.

    Attributes:
        index: its place in the run.
        listed: its item, and where it comes from.
        owner: image of the run whose results have its names: its own, or that of an earlier study.
        repeats: index of an earlier study of the same image.
        content: what :class:`StudyDataset` gave of it.
        maps: of the slices that count, ``(1 or 2, X, Y, n)``; none before the network.
        seconds: by stage.
    """

    index: int
    listed: ListedStudy
    owner: str
    repeats: int | None = None
    content: dict[str, Any] = field(default_factory=dict)
    maps: NDArray[Any] | None = None
    seconds: dict[str, float] = field(default_factory=dict)

    @property
    def image(self) -> str:
        """Address or path of its image, of several files the first."""
        return self.listed.uris.get("image", first_path(self.listed.item))

    def named(self, message: str) -> str:
        """Return a message with addresses in place of their copies' paths, each told once."""
        for key, uri in self.listed.uris.items():
            path = str(self.listed.item[key])
            message = message.replace(path, uri).replace(f"{uri}: {uri}", uri)
        return message

    @property
    def reading(self) -> dict[str, Any]:
        """What happened to it until now."""
        told: dict[str, Any] = json.loads(self.content[READING])
        return told

    @property
    def needed(self) -> bool:
        """Whether it was read and has to be done."""
        return self.reading["status"] == StudyStatus.DONE

    def note(self, **changes: Any) -> None:
        """Change what is told of it."""
        self.content[READING] = json.dumps(self.reading | changes)


def as_table(studies: Sequence[TravellingStudy]) -> pa.Table:
    """Return studies as Ray carries them: a row each."""
    import pyarrow as pa

    rows = [pickle.dumps(_packed(study), protocol=5) for study in studies]
    return pa.table({"study": pa.array(rows, pa.large_binary())})


def _packed(study: TravellingStudy) -> TravellingStudy:
    def packed(value: Any) -> Any:
        if not isinstance(value, MetaTensor):
            return value
        # Its inverse is made by an equal transform of another process.
        operations = [{**one, TraceKeys.ID: TraceKeys.NONE} for one in value.applied_operations]
        return _Array(plain_tensor(value).numpy(), value.meta, operations)

    return replace(study, content={key: packed(v) for key, v in study.content.items()})


def studies_of(table: pa.Table) -> list[TravellingStudy]:
    """Return the studies of a table that :func:`as_table` made."""

    def unpacked(value: Any) -> Any:
        if not isinstance(value, _Array):
            return value
        return MetaTensor(
            torch.from_numpy(value.values),
            meta=value.meta,
            applied_operations=value.operations,
        )

    studies = [pickle.loads(row.as_buffer()) for row in table["study"]]
    for study in studies:
        study.content = {key: unpacked(value) for key, value in study.content.items()}
    return studies


def failed_content(message: str, kind: FailureKind) -> dict[str, Any]:
    """Return what :class:`StudyDataset` gives of a study that could not be read."""
    told = {"status": StudyStatus.FAILED, "message": message, "kind": kind}
    return {READING: json.dumps({"index": 0, "seconds": 0.0, "inputs": None, **told})}


def failed_row(study: TravellingStudy, message: str) -> dict[str, Any]:
    """Return the row of a study of which nothing was written."""
    return {
        "index": study.index,
        "id": study.listed.id,
        "image": study.image,
        "status": str(StudyStatus.FAILED),
        "message": message,
        "seconds": sum(study.seconds.values()),
    }
