"""What Ray's workers do with a study: read it, take its slices through the network, write its map."""

from __future__ import annotations

import time
from collections import defaultdict
from collections.abc import Iterable, Mapping, Sequence
from contextlib import nullcontext
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import torch
from monai.bundle import ConfigParser
from monai.inferers import Inferer
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
from multiad_med.data.datalist import first_path
from multiad_med.inference.predictor import StudyPredictor, made, study_parser
from multiad_med.inference.study_summary import summary_row
from multiad_med.preparation.sources import StudyKind
from multiad_med.scale.fetch import (
    fetch_folder,
    fetched,
    is_uri,
    private_folder,
    results_folder,
)
from multiad_med.scale.sources import ListedStudy
from multiad_med.scale.storage import ObjectStorage, StoredResults
from multiad_med.scale.travelling_study import (
    TravellingStudy,
    as_table,
    failed_content,
    failed_row,
    studies_of,
)
from multiad_med.transforms import marked_slices
from multiad_med.utils.configs import literal
from multiad_med.utils.memory import keep_freed_memory
from multiad_med.utils.tensors import plain_tensor

if TYPE_CHECKING:
    import pyarrow as pa

__all__ = ["MapStudies", "ReadStudies", "ScoringNetwork", "StudyRun", "WriteStudies"]


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
        folder = results_folder(output)
        storage = ObjectStorage(str(output), folder) if is_uri(str(output)) else None
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
        return cls(config, source, folder, fetch_folder(output), predictor.kind, storage)

    def parser(self, item: Mapping[str, Any]) -> ConfigParser:
        """Return the parts of the bundle's inference for one study, without the network."""
        return study_parser(self.config, item, source=self.source, output_dir=self.output_dir)

    def travelling(self, studies: Iterable[ListedStudy]) -> list[TravellingStudy]:
        """Return studies ready to be sent out. Of several with one name of results, the first has it."""
        results: StudyResults = self.part("results")
        return [
            TravellingStudy(index, study, results.owner(study.item))
            for index, study in enumerate(studies)
        ]

    def results_of(self, parser: ConfigParser, study: TravellingStudy) -> StudyResults:
        """Return where a study's results go, which knows whose they are and where the image is from."""
        results: StudyResults = made(parser, "results")
        results.expect([study.listed.item | {"image": study.owner}])
        results.addresses[first_path(study.listed.item)] = study.image
        return results

    def part(self, name: str) -> Any:
        """Return a part of the bundle's inference that is the same for all studies."""
        return made(self.parser({"image": "none"}), name)


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
        if study.repeats is not None:
            message = f"{study.image}: the same image as study {study.repeats + 1}. List it once."
            return failed_content(message, FailureKind.STUDY)
        try:
            with study_errors(item), fetched(study.listed, self.run.fetch_dir, self.run.kind):
                parser = self.run.parser(item)
                results = self.run.results_of(parser, study)
                dataset: StudyDataset = made(parser, "dataset")
                content = dataset[0]
                if isinstance(results, StoredResults):  # another machine may write them
                    results.clear(first_path(item))
                return content
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
        start, reading = time.perf_counter(), study.reading
        begun = reading["inputs"] is not None  # else nothing on the disk is its own
        try:
            with study_errors(study.listed.item):
                row = self._finished(study) if begun else failed_row(study, reading["message"])
        except StudyError as error:  # a file could not be fetched again
            row = failed_row(study, str(error))
        stages = {f"{name}_seconds": value for name, value in study.seconds.items()}
        row["message"] = study.named(row["message"])
        return {**row, **stages, "write_seconds": time.perf_counter() - start}

    def _finished(self, study: TravellingStudy) -> dict[str, Any]:
        if self.run.storage:
            private_folder(self.run.fetch_dir)
        # An image's overlay is made from its file.
        again = study.needed and self.run.kind is None
        with fetched(study.listed, self.run.fetch_dir) if again else nullcontext():
            parser = self.run.parser(study.listed.item)
            results = self.run.results_of(parser, study)
            dataset = MappedStudies([study.listed.item], [study], results=results)
            parser["results"], parser["dataset"] = results, dataset
            parser["inferer"] = MadeMaps(dataset)
            made(parser, "evaluator").run()
        (outcome,) = dataset.outcomes
        if isinstance(results, StoredResults):
            outcome = results.settled(outcome)
        row = summary_row(outcome, results)
        scores = {} if outcome.status is StudyStatus.FAILED else results.scores(outcome.image)
        hashes = {key: value for key, value in scores.items() if key.endswith("_sha256")}
        if isinstance(results, StoredResults):
            results.clear(outcome.image)
        return {**row, **hashes, "index": study.index, "id": study.listed.id}
