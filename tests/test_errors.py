"""Errors that a user can mend are told in one line; faults of the program and lack of memory are not."""

from __future__ import annotations

import errno
import importlib
import inspect
import json
import logging
import os
import pkgutil
import re
import subprocess
import sys
import tomllib
from itertools import pairwise
from pathlib import Path

import numpy as np
import pytest
import torch
from monai.utils import optional_import

import multiad_med
from multiad_med.data import StudyError, study_errors
from multiad_med.readers import ImageError
from multiad_med.utils import FileError, InputError, MultiADError
from multiad_med.utils.atomic import atomic_path, write_state
from multiad_med.utils.choose import choose, usable_device
from multiad_med.utils.errors import (
    EXTRAS,
    MissingPackageError,
    file_errors,
    last_line,
    reader_errors,
    user_error,
)
from multiad_med.utils.json_files import read_json

PACKAGE = Path(multiad_med.__file__).parent


def chained(*errors: BaseException) -> BaseException:
    """The first error, each raised from the one behind it."""
    for error, cause in pairwise(errors):
        error.__cause__ = cause
    return errors[0]


def test_our_error_inside_those_of_monai_is_told() -> None:
    ours = InputError("the size is 0")
    wrapped = chained(RuntimeError("Failed to instantiate"), RuntimeError("applying"), ours)
    assert user_error(wrapped) is ours
    # One of ours that wraps another tells more than that one.
    study = StudyError("a.nii: the size is 0")
    assert user_error(chained(RuntimeError("run"), study, ours)) is study
    assert user_error(chained(RuntimeError("run"), KeyError("a bug"))) is None


class TestStudies:
    @pytest.mark.parametrize(
        "error",
        [
            MemoryError("cannot allocate 9 GiB"),
            torch.OutOfMemoryError("CUDA out of memory. Tried to allocate 9 GiB."),
            RuntimeError("DefaultCPUAllocator: can't allocate memory: you tried to allocate 9"),
            OSError(errno.ENOMEM, os.strerror(errno.ENOMEM)),
        ],
    )
    def test_a_lack_of_memory_is_told_by_name_with_what_helps(
        self, caplog: pytest.LogCaptureFixture, error: Exception
    ) -> None:
        wrapped = chained(RuntimeError("applying transform <x>"), error)
        with pytest.raises(StudyError) as told, study_errors({"image": "a.nii"}):
            raise wrapped
        said = rf"^a\.nii: out of memory.*\b{type(error).__name__}\b.*sw_batch_size.*device"
        assert re.search(said, str(told.value))
        assert not caplog.records

    def test_a_bug_fails_the_study_and_its_trace_is_logged(
        self, caplog: pytest.LogCaptureFixture
    ) -> None:
        bug = chained(RuntimeError("applying transform <x>"), TypeError("a bug"))
        with (
            pytest.raises(StudyError, match=r"^a\.nii: TypeError: a bug$"),
            study_errors({"image": "a.nii"}),
        ):
            raise bug
        (record,) = caplog.records
        assert record.levelno == logging.ERROR
        assert record.exc_info is not None
        assert record.exc_info[1] is bug

    @pytest.mark.parametrize(
        ("error", "message"),
        [
            (InputError("b is wrong."), "a.nii: b is wrong."),
            (
                PermissionError(errno.EACCES, "Permission denied", "b.nii"),
                "Permission denied: 'b.nii'",
            ),
        ],
    )
    def test_what_a_user_can_mend_is_told_without_a_trace(
        self, caplog: pytest.LogCaptureFixture, error: Exception, message: str
    ) -> None:
        with pytest.raises(StudyError) as told, study_errors({"image": "a.nii"}):
            raise error
        assert message in str(told.value)
        assert not caplog.records

    @pytest.mark.parametrize("end", [KeyboardInterrupt, SystemExit])
    def test_ends_of_the_program_pass(self, end: type[BaseException]) -> None:
        with pytest.raises(end), study_errors({"image": "a.nii"}):
            raise end


class TestFiles:
    def test_a_reader_tells_damage_with_the_files_name_and_no_lack_of_memory(self) -> None:
        def read(error: Exception) -> None:
            with reader_errors("p.png", ImageError, "not a readable image"):
                raise error

        with pytest.raises(ImageError, match=r"p\.png: not a readable image: odd"):
            read(SyntaxError("odd"))
        with pytest.raises(FileError, match=r"p\.png.*Permission denied"):
            read(PermissionError(errno.EACCES, "Permission denied"))
        for error in (MemoryError("9 GiB"), torch.OutOfMemoryError("9 GiB")):
            with pytest.raises(type(error)):
                read(error)

    def test_errors_of_a_network_are_none_of_a_file(self) -> None:
        with pytest.raises(ConnectionResetError), file_errors("a"):
            raise ConnectionResetError(errno.ECONNRESET, "reset")

    def test_writing_tells_the_path_and_the_reason(self, tmp_path: Path) -> None:
        (tmp_path / "file").touch()
        with (
            pytest.raises(FileError, match=r"x\.json cannot be written"),
            atomic_path(tmp_path / "file" / "x.json"),
        ):
            pass
        (tmp_path / "folder" / "in").mkdir(parents=True)
        with (
            pytest.raises(FileError, match=r"folder.*Is a directory"),
            atomic_path(tmp_path / "folder") as temporary,
        ):
            temporary.touch()
        assert sorted(p.name for p in tmp_path.iterdir()) == ["file", "folder"]

    def test_an_error_about_another_file_is_not_told_as_one_of_writing(
        self, tmp_path: Path
    ) -> None:
        with pytest.raises(FileNotFoundError), atomic_path(tmp_path / "x"):
            (tmp_path / "other").read_text()

    def test_a_full_disk_is_told_by_what_torch_writes(
        self, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        if not Path("/dev/full").exists():
            pytest.skip("needs /dev/full")
        plain = Path.open
        monkeypatch.setattr(Path, "open", lambda path, mode="r": plain(Path("/dev/full"), mode))
        with pytest.raises(FileError, match=r"model\.pt.*No space left on device"):
            write_state(tmp_path / "model.pt", {"a": torch.zeros(1_000_000)})
        assert list(tmp_path.iterdir()) == []

    def test_json_is_read_or_told(self, tmp_path: Path) -> None:
        path = tmp_path / "a.json"
        path.write_text(json.dumps({"a": 1}))
        assert read_json(path) == {"a": 1}
        path.write_bytes(b"\xff\xfe")
        with pytest.raises(InputError, match=r"a\.json.*not a readable"):
            read_json(path)
        with pytest.raises(FileError, match=r"Is a directory"):
            read_json(tmp_path)


class TestPackages:
    def test_every_optional_package_has_the_extra_that_installs_it(self) -> None:
        project = tomllib.loads((PACKAGE.parent / "pyproject.toml").read_text())["project"]
        extras = project["optional-dependencies"]
        distributions = {"dicomweb_client": "dicomweb-client", "gdcm": "python-gdcm"}
        for name, extra in EXTRAS.items():
            assert any(r.startswith(distributions.get(name, name)) for r in extras[extra]), name
            assert not any(r.startswith(name) for r in project["dependencies"]), name
        for_us = {"dev", "docs", "notebooks", "peers", "test", "test-label"}  # peers: an old name
        for_users = set(extras) - for_us
        assert set(EXTRAS.values()) == for_users

    def test_one_that_is_missing_is_told_with_its_extra(
        self, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        monkeypatch.setitem(sys.modules, "onnxscript", None)
        monkeypatch.delitem(sys.modules, "onnxscript.values", raising=False)  # of an earlier test
        with pytest.raises(ImportError) as failed:
            importlib.import_module("onnxscript.values")
        told = user_error(chained(RuntimeError("export"), failed.value))
        assert isinstance(told, MissingPackageError)
        assert re.search(r"\bonnxscript\b.*`pip install 'multiad-med\[export\]'`", str(told))

    def test_one_that_monai_does_not_find_is_told_too(
        self, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        monkeypatch.setattr("multiad_med.utils.errors.is_missing", lambda name: True)
        monkeypatch.setitem(EXTRAS, "none_such", "tracking")
        package, _ = optional_import("none_such")
        with pytest.raises(ImportError) as failed:
            package.x  # noqa: B018
        assert re.search(r"\bnone_such\b.*multiad-med\[tracking\]", str(user_error(failed.value)))

    def test_a_fault_inside_one_that_is_there_is_none_of_a_user(self) -> None:
        assert user_error(ImportError("cannot import name 'x'", name="onnx")) is None
        assert user_error(ModuleNotFoundError("No module named 'x'", name="x")) is None


class TestLastLine:
    def test_is_the_reason(self) -> None:
        assert last_line(InputError("a is wrong.")) == "Error: a is wrong."

    def test_has_a_single_detail_in_it(self) -> None:
        told = last_line(StudyError("1 of 3 studies failed:\n  a.nii: cut"))
        assert told == "Error: 1 of 3 studies failed: a.nii: cut"

    def test_comes_below_several_details(self) -> None:
        told = last_line(StudyError("2 of 3 studies failed:\n  a.nii: cut\n  b.nii: empty"))
        *details, last = told.splitlines()
        assert details == [
            "  a.nii: cut",
            "  b.nii: empty",
        ]
        assert last.startswith("Error: 2 of 3 studies failed")

    def test_comes_after_a_bar_that_is_open(self) -> None:
        code = (
            "import sys; sys.argv[0] = 'x/monai/bundle/__main__.py'\n"
            "from tqdm import tqdm; import multiad_med.utils.overrides\n"
            "from multiad_med.utils import InputError\n"
            "bar = tqdm(total=2, desc='bar'); bar.update()\n"
            "raise RuntimeError('MONAI') from InputError('a is wrong.')"
        )
        run = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True)
        assert run.returncode == 1
        assert run.stderr.endswith("\nError: a is wrong.\n")
        assert "Traceback" not in run.stderr

    def test_is_of_monais_command_only(self) -> None:
        code = (
            "import multiad_med.utils.overrides; from multiad_med.utils import InputError\n"
            "raise InputError('a is wrong.')"
        )
        run = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True)
        assert run.stderr.startswith("Traceback")


def test_a_choice_that_there_is_not_is_told_with_those_that_there_are() -> None:
    from multiad_med.evaluation.parts import Part

    assert choose(Part, "report", what="part") is Part.REPORT
    with pytest.raises(InputError, match=r"part\b.*\['all', 'development', 'report'\].*got 'x'"):
        choose(Part, "x", what="part")


def test_a_device_is_one_that_is_here() -> None:
    assert usable_device("cpu") == torch.device("cpu")
    with pytest.raises(InputError, match="device 'gpu'"):
        usable_device("gpu")
    if not torch.cuda.is_available():
        with pytest.raises(InputError, match="device 'cuda:0'"):
            usable_device("cuda:0")


def test_every_exception_of_the_package_is_one_that_a_user_can_mend() -> None:
    found = []
    for module in pkgutil.walk_packages(multiad_med.__path__, "multiad_med."):
        if module.name.startswith("multiad_med.label."):  # needs MONAI Label; read below
            continue
        for name, kind in inspect.getmembers(importlib.import_module(module.name), inspect.isclass):
            if issubclass(kind, BaseException) and kind.__module__ == module.name:
                found.append(name)
                # Private ones, and those that no barrier is to catch, end a loop and reach nobody.
                control_flow = name.startswith("_") or not issubclass(kind, Exception)
                assert control_flow or issubclass(kind, MultiADError), name
    assert len(found) > 20


def test_who_catches_everything_says_why() -> None:
    bare = []
    for path in PACKAGE.rglob("*.py"):
        for number, line in enumerate(path.read_text(encoding="utf-8").splitlines(), 1):
            if line.strip().startswith(("except Exception", "except BaseException", "except:")):
                bare += [] if "  # " in line else [f"{path.name}:{number}"]
    assert bare == []


def test_arrays_that_do_not_fit_are_a_lack_of_memory() -> None:
    with pytest.raises(StudyError, match="out of memory"), study_errors({"image": "a.nii"}):
        np.empty(1 << 60, np.uint8)
