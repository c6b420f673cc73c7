"""The words that can be chosen on the command line are those of the library."""

from __future__ import annotations

from multiad_med.benchmark.compare import METHODS
from multiad_med.cli import choices
from multiad_med.cli.train import PRESETS as TRAINED
from multiad_med.dicom.write.results import DicomKind, Segments
from multiad_med.evaluation.parts import Part
from multiad_med.inference import Runtime
from multiad_med.networks import PRESETS
from multiad_med.networks.weights import PRETRAINED
from multiad_med.preparation import ExportLayout
from multiad_med.resources import bundles_dir, presets
from multiad_med.testing.cohorts import one_bundle_per_input
from multiad_med.transforms import Window


def test_the_words_are_those_of_the_library() -> None:
    domains = {p.parent.name.removeprefix("multiad_") for p in bundles_dir().glob("*/configs")}
    for own, words in (
        (choices.Domain, domains),
        (choices.DicomResult, DicomKind),
        (choices.ServedResult, [*DicomKind, "none"]),
        (choices.Segments, Segments),
        (choices.Part, Part),
        (choices.Window, Window),
        (choices.Layout, ExportLayout),
        (choices.Architecture, PRETRAINED),
        (choices.Preset, PRESETS),
        (choices.Method, METHODS),
        (choices.Runtime, Runtime),
    ):
        assert set(map(str, own)) == set(map(str, words)), own


def test_every_bundle_trains_the_presets_that_the_help_lists() -> None:
    for bundle in one_bundle_per_input():
        assert list(TRAINED) == presets(bundle)
