"""What Ray's workers do with a study: read it, take its slices through the network, write its map."""

from __future__ import annotations

import json
import pickle
import time
from collections import defaultdict
from collections.abc import Iterable, Mapping, Sequence
from contextlib import nullcontext
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple

import torch
from monai.data import MetaTensor
from monai.inferers import Inferer
from monai.utils import TraceKeys
from numpy.typing import NDArray
from torch import Tensor, nn

from multiad_med.card import CalibratedNetwork
from multiad_med.data import (
    FailureKind,
    StudyDataset,
    StudyError,
    StudyResults,
    StudyStatus,
    study_errors,
)
from multiad_med.data.study_dataset import READING
from multiad_med.inference.predictor import StudyPredictor, made, study_parser
from multiad_med.inference.study_summary import summary_row
from multiad_med.preparation.sources import StudyKind
from multiad_med.scale.fetch import fetch_folder, fetched, is_uri, results_folder
from multiad_med.scale.sources import ListedStudy
from multiad_med.scale.storage import ObjectStorage, StoredResults
from multiad_med.transforms import marked_slices
from multiad_med.utils.configs import literal
from multiad_med.utils.memory import keep_freed_memory
from multiad_med.utils.tensors import plain_tensor

if TYPE_CHECKING:
    import pyarrow as pa

__all__ = ["MapStudies", "ReadStudies", "ScoringNetwork", "StudyRun", "WriteStudies", "as_table"]


@dataclass(frozen=True)
class TakenRuntime:
    """What results say of the run-time, without the run-time."""

    name: str


class ScoringNetwork(nn.Module):
    """What scoring needs of a network, without its weights."""

    def __init__(self, network: CalibratedNetwork) -> None:
        super().__init__()
        self.calibrated = network.calibrated.cpu()
        self.pixel_false_positive_rate = network.pixel_false_positive_rate.cpu()
        self.score_fraction = network.score_fraction.cpu()
        self.card = network.card


@dataclass(frozen=True)
class StudyRun:
    """What all workers of a run know.

    Args:
        config: of :class:`multiad_med.inference.predictor.StudyPredictor`, with a
            :class:`ScoringNetwork`, the run-time's name, where results are named from, and the model's
            hash.
        source: folder that results are named from.
        output_dir: of the results.
        fetch_dir: see :func:`multiad_med.scale.fetch.fetch_folder`.
        kind: of the volumes; none of images.
        storage: where results go, if not to ``output_dir`` for good.
    """

    config: dict[str, Any]
    source: Path
    output_dir: Path
    fetch_dir: Path
    kind: StudyKind | None
    storage: ObjectStorage | None = None

    @classmethod
    def of(cls, predictor: StudyPredictor, *, source: Path, output: str | Path) -> StudyRun:
        """Make a run of a loaded model, whose results go to a folder or an address."""
        storage = ObjectStorage(str(output)) if is_uri(str(output)) else None
        named = {"source": literal(str(source)), "model_sha256": predictor.about["model"]}
        if storage:
            named["_target_"] = f"{StoredResults.__module__}.{StoredResults.__name__}"
            named["storage"] = literal(storage.address)
        changed = {
            "network": ScoringNetwork(predictor.network),
            "mapper": TakenRuntime(predictor.mapper.name),
            "device": torch.device("cpu"),
            "amp": False,
            "split": "test",
            "results": predictor.config["results"] | named,
            "dataloader": predictor.config["dataloader"] | {"num_workers": 0},
        }
        config = predictor.config | changed
        folders = results_folder(output), fetch_folder(output)
        return cls(config, source, *folders, predictor.kind, storage)

    def parser(self, item: Mapping[str, Any]) -> Any:
        """Return the parts of the bundle's inference for one study, without the network."""
        return study_parser(self.config, item, source=self.source, output_dir=self.output_dir)

    def travelling(self, studies: Iterable[ListedStudy]) -> list[TravellingStudy]:
        """Return studies ready to be sent out. Of several with one name of results, the first has it."""
        results: StudyResults = self.part("results")
        return [
            TravellingStudy(index, study, results.owner(study.item))
            for index, study in enumerate(studies)
        ]

    def part(self, name: str) -> Any:
        """Return a part of the bundle's inference that is the same for all studies."""
        return made(self.parser({"image": "none"}), name)


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
        content: what :class:`StudyDataset` gave of it.
        maps: of the slices that count, ``(1 or 2, X, Y, n)``; none before the network.
        seconds: by stage.
    """

    index: int
    listed: ListedStudy
    owner: str
    content: dict[str, Any] = field(default_factory=dict)
    maps: NDArray[Any] | None = None
    seconds: dict[str, float] = field(default_factory=dict)

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


class ReadStudies:
    """Reads and prepares studies by the bundle's own ``preprocessing``; errors become rows."""

    def __init__(self, run: StudyRun) -> None:
        self.run = run

    def __call__(self, table: pa.Table) -> pa.Table:
        """Return the studies with their slices, or with why there are none."""
        torch.set_num_threads(1)
        keep_freed_memory()
        studies = studies_of(table)
        for study in studies:
            start = time.perf_counter()
            study.content = self._read(study)
            study.seconds["read"] = time.perf_counter() - start
        return as_table(studies)

    def _read(self, study: TravellingStudy) -> dict[str, Any]:
        item = study.listed.item
        try:
            with study_errors(item), fetched(study.listed.uris, self.run.fetch_dir, self.run.kind):
                parser = self.run.parser(item)
                results: StudyResults = made(parser, "results")
                results.expect([item | {"image": study.owner}])
                dataset: StudyDataset = made(parser, "dataset")
                return dataset[0]
        except StudyError as error:  # it could not be fetched
            return failed_content(str(error), error.kind)


class MapStudies:
    """Takes the slices of several studies through the network, packed into full batches.

    An actor: the network stays in its memory.

    Args:
        model: ``model.pt``.
        device: ``cpu`` or ``cuda``.
        arguments: others of :class:`multiad_med.inference.predictor.StudyPredictor`.
    """

    def __init__(self, model: Path, *, device: str, **arguments: Any) -> None:
        if device == "cpu":
            torch.set_num_threads(1)
        keep_freed_memory()
        self.predictor = StudyPredictor(model, device=device, **arguments)
        self.network: nn.Module = self.predictor.mapper
        parser = self.predictor.parser({"image": str(model)}, Path.cwd(), Path.cwd() / "none")
        self.inferer: Inferer = made(parser, "inferer")
        self.device: torch.device = made(parser, "device")
        self.amp: bool = made(parser, "amp")

    def __call__(self, table: pa.Table) -> pa.Table:
        """Return the studies with their maps, or with why there are none."""
        studies = studies_of(table)
        needed = [study for study in studies if study.needed]
        start = time.perf_counter()
        try:
            self._map(needed)
        except Exception:  # which of them is to blame, and the others are done all the same
            for study in needed:
                self._map_alone(study)
        for study in needed:
            study.seconds["network"] = (time.perf_counter() - start) / len(needed)
        return as_table(studies)

    def _map_alone(self, study: TravellingStudy) -> None:
        try:
            with study_errors(study.listed.item):
                self._map([study])
        except StudyError as error:
            study.note(status=StudyStatus.FAILED, message=str(error), kind=error.kind)

    def _map(self, studies: Sequence[TravellingStudy]) -> None:
        alike: dict[tuple[int, ...], list[tuple[TravellingStudy, Tensor]]] = defaultdict(list)
        for study in studies:
            image = study.content["image"]
            slices = plain_tensor(image)[..., marked_slices(image)]
            alike[slices.shape[:-1]].append((study, slices))
        for group in alike.values():
            joined = torch.cat([slices for _, slices in group], dim=-1)[None]
            cast = torch.autocast("cuda") if self.amp else nullcontext()
            with torch.no_grad(), cast:
                maps: Tensor = self.inferer(joined.to(self.device), self.network)
            counts = [slices.shape[-1] for _, slices in group]
            for (study, _), own in zip(group, maps[0].cpu().split(counts, dim=-1), strict=True):
                study.maps = own.numpy()


class MadeMaps(Inferer):
    """Gives the map that the network has made elsewhere, of the study that was read last."""

    def __init__(self, dataset: MappedStudies) -> None:
        super().__init__()
        self.dataset = dataset

    def __call__(self, inputs: Tensor, network: Any, *args: Any, **kwargs: Any) -> Tensor:
        """Return the map ``(1, 1 or 2, X, Y, Z)``, 0 on slices that do not count."""
        maps = torch.from_numpy(self.dataset.maps)
        result = inputs.new_zeros((1, maps.shape[0], *inputs.shape[2:]))
        result[..., marked_slices(inputs)] = maps.to(result.dtype)
        return result


class MappedStudies(StudyDataset):
    """Studies that were read and mapped elsewhere, with what happened there.

    Args:
        items: of a datalist.
        studies: what became of them, in this order.
        results: of the run.
    """

    def __init__(
        self,
        items: Sequence[Mapping[str, Any]],
        studies: Iterable[TravellingStudy],
        *,
        results: StudyResults,
    ) -> None:
        super().__init__(items, dict, results=results)
        self.studies = iter(studies)
        self.maps: NDArray[Any] | None = None

    def __getitem__(self, index: int) -> dict[str, Any]:
        """Return the next study."""
        study = next(self.studies)
        study.note(index=index, seconds=sum(study.seconds.values()))
        self.maps = study.maps
        return study.content


class WriteStudies:
    """Brings maps back and writes results, by the bundle's own ``postprocessing`` and evaluator."""

    def __init__(self, run: StudyRun) -> None:
        self.run = run

    def __call__(self, table: pa.Table) -> pa.Table:
        """Return a row of scores for each study."""
        from multiad_med.scale.score_files import score_table

        torch.set_num_threads(1)
        keep_freed_memory()
        return score_table([self._written(study) for study in studies_of(table)])

    def _written(self, study: TravellingStudy) -> dict[str, Any]:
        start = time.perf_counter()
        # An image's overlay is made from its file.
        uris = study.listed.uris if study.needed and self.run.kind is None else {}
        with fetched(uris, self.run.fetch_dir):
            parser = self.run.parser(study.listed.item)
            results: StudyResults = made(parser, "results")
            results.expect([study.listed.item | {"image": study.owner}])
            dataset = MappedStudies([study.listed.item], [study], results=results)
            parser["results"], parser["dataset"] = results, dataset
            parser["inferer"] = MadeMaps(dataset)
            made(parser, "evaluator").run()
        (outcome,) = dataset.outcomes
        if isinstance(results, StoredResults):
            outcome = results.settled(outcome)
        row = summary_row(outcome, results)
        image = str(study.listed.uris.get("image", row["image"]))
        scores = {} if outcome.status is StudyStatus.FAILED else results.scores(outcome.image)
        hashes = {key: value for key, value in scores.items() if key.endswith("_sha256")}
        if isinstance(results, StoredResults):
            results.clear(outcome.image)
        stages = {f"{name}_seconds": value for name, value in study.seconds.items()}
        stages["write_seconds"] = time.perf_counter() - start
        own = {"index": study.index, "id": study.listed.id, "image": image}
        return {**row, **hashes, **stages, **own}
