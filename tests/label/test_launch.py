"""``multiad label``: the app's folder, and the real server process."""

from __future__ import annotations

import json
import os
import re
import socket
import subprocess
import sys
import time
from collections.abc import Iterator
from dataclasses import dataclass
from importlib.abc import MetaPathFinder
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import nibabel as nib
import numpy as np
import pytest
import torch
from typer.testing import CliRunner

from multiad_med.cli import app as cli
from multiad_med.testing.cohorts import write_fake_model
from tests.label.conftest import BRAIN, LIVER, REASON, SHIMS, make_heads

httpx = pytest.importorskip("httpx", reason=REASON)


def test_init_copies_bundles_with_their_models(tmp_path: Path) -> None:
    model = write_fake_model(BRAIN, tmp_path / "brain.pt")
    folder = tmp_path / "app"
    options = ["--bundle", f"{BRAIN}={model}", "--bundle", LIVER]
    made = CliRunner().invoke(cli, ["label", "init", str(folder), *options])
    assert made.exit_code == 0, made.output
    assert f"{BRAIN}: {model}" in made.output
    assert f"{LIVER}: no model yet" in made.output
    assert (folder / "main.py").is_file()
    assert (folder / "model" / BRAIN / "models" / "model.pt").read_bytes() == model.read_bytes()
    assert (folder / "model" / LIVER / "configs" / "train.json").is_file()
    again = CliRunner().invoke(cli, ["label", "init", str(folder), "--bundle", LIVER])
    assert again.exit_code == 2
    assert "exists" in again.output


@pytest.mark.parametrize(
    ("bundle", "reason"),
    [
        ("multiad_industrial", LIVER),
        (f"{BRAIN}=absent.pt", "absent.pt"),
        (f"{BRAIN}=other.pt", "other.pt"),
    ],
)
def test_init_refuses_what_it_cannot_serve(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, bundle: str, reason: str
) -> None:
    monkeypatch.chdir(tmp_path)
    torch.save({"weight": torch.zeros(1)}, "other.pt")
    made = CliRunner().invoke(cli, ["label", "init", "app", "--bundle", bundle])
    assert made.exit_code == 2
    assert reason in made.output
    assert not Path("app").exists()


@pytest.mark.parametrize("command", ["init", "start"])
@pytest.mark.parametrize("kind", ["broken", "missing", "without operators"])
def test_a_torchvision_that_does_not_fit_torch_is_told_with_the_command_that_mends_it(
    app_folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, kind: str, command: str
) -> None:
    class Unfit(MetaPathFinder):
        def find_spec(self, name: str, *_: object) -> None:
            if name == "torchvision" and kind == "broken":
                raise RuntimeError("operator torchvision::nms does not exist")
            if name == "torchvision":
                raise ModuleNotFoundError("No module named 'torchvision'", name=name)

    if kind == "without operators":
        monkeypatch.setattr(torch.ops, "torchvision", SimpleNamespace())
    else:
        monkeypatch.delitem(sys.modules, "torchvision", raising=False)
        monkeypatch.setattr(sys, "meta_path", [Unfit(), *sys.meta_path])
    folder = tmp_path / "new" if command == "init" else app_folder
    arguments = ["--bundle", LIVER] if command == "init" else [str(tmp_path)]
    made = CliRunner().invoke(cli, ["label", command, str(folder), *arguments])
    assert made.exit_code != 0
    assert made.output.startswith("Error: torchvision ")
    assert f" torch {torch.__version__}: " in made.output
    assert re.search("pip install .*-c constraints-label.txt torch torchvision", made.output)
    assert made.output.count("\n") == 1
    assert not (tmp_path / "new").exists()


def test_start_says_why_it_cannot(app_folder: Path, tmp_path: Path) -> None:
    def start(*arguments: str) -> str:
        result = CliRunner().invoke(cli, ["label", "start", *arguments])
        assert result.exit_code == 2
        return result.output

    assert "is no app" in start(str(tmp_path), str(tmp_path))
    assert "is no folder of studies" in start(str(app_folder), str(tmp_path / "none"))
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        taken.listen()
        port = taken.getsockname()[1]
        output = start(str(app_folder), str(tmp_path), "--port", str(port))
        assert re.search(rf"\b127\.0\.0\.1:{port}\b.*in use", output)


@dataclass
class Process:
    """A running ``multiad label start``.

    Attributes:
        url: of the server.
        log: file with what it prints.
        studies: folder of its studies.
    """

    url: str
    log: Path
    studies: Path

    def post(self, path: str, **options: Any) -> httpx.Response:
        return httpx.post(self.url + path, timeout=120, **options)


@pytest.fixture(scope="module")
def process(app_folder: Path, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Process]:
    folder = tmp_path_factory.mktemp("process")
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port = probe.getsockname()[1]
    arguments = ["label", "start", str(app_folder), str(make_heads(folder / "studies"))]
    environment = {
        **os.environ,
        "PYTHONPATH": os.pathsep.join([str(SHIMS), os.environ.get("PYTHONPATH", "")]),
        "MONAI_LABEL_SESSION_PATH": str(folder / "sessions"),
        "OMP_NUM_THREADS": "1",
    }
    code = "from multiad_med.cli import app; app()"
    with (folder / "log").open("w") as log:
        server = subprocess.Popen(
            [sys.executable, "-c", code, *arguments, "--port", str(port)],
            cwd=folder,
            env=environment,
            stdout=log,
            stderr=log,
        )
    running = Process(f"http://127.0.0.1:{port}", folder / "log", folder / "studies")
    try:
        _wait(server, running)
        yield running
    finally:
        server.terminate()
        server.wait(30)


def _wait(server: subprocess.Popen[bytes], running: Process) -> None:
    end = time.monotonic() + 180
    while time.monotonic() < end and server.poll() is None:
        try:
            httpx.get(f"{running.url}/info/", timeout=60).raise_for_status()
        except httpx.HTTPError:
            time.sleep(0.5)
        else:
            return
    pytest.fail(running.log.read_text()[-3000:])


def test_start_prints_the_plain_command_and_listens_on_loopback(process: Process) -> None:
    printed = process.log.read_text().splitlines()[0]
    assert "-m monailabel.main start_server --app" in printed
    assert "--host 127.0.0.1" in printed
    ports = Path("/proc/net/tcp").read_text()
    port = f"{int(process.url.rpartition(':')[2]):04X}"
    assert f"0100007F:{port} 00000000:0000 0A" in ports
    assert f"00000000:{port} 00000000:0000 0A" not in ports


def test_the_process_answers_every_endpoint(process: Process, tmp_path: Path) -> None:
    info = httpx.get(f"{process.url}/info/", timeout=60).json()
    assert BRAIN in info["models"]
    assert httpx.get(f"{process.url}/datastore/").json()["total"] == 4
    params = {"params": json.dumps({"heatmap": True})}
    judged = process.post(f"/infer/{BRAIN}?image=oblique&output=json", data=params)
    assert judged.status_code == 200, judged.text
    both = process.post(f"/infer/{BRAIN}?image=oblique&output=all", data=params)
    assert b"anomaly_score" in both.content
    image = process.post(f"/infer/{BRAIN}?image=oblique&output=image", data=params)
    (tmp_path / "label.nii.gz").write_bytes(image.content)
    label = nib.load(tmp_path / "label.nii.gz")
    assert np.asarray(label.dataobj).any()
    assert label.shape == nib.load(process.studies / "oblique.nii.gz").shape
    following = process.post("/activelearning/most_anomalous", json={})
    assert following.json()["id"] == "oblique"
    assert process.post("/infer/unknown?image=a").status_code == 404
    assert process.post("/train/unknown").status_code == 404


def test_a_client_that_goes_away_leaves_the_server_to_others(process: Process) -> None:
    host, _, port = process.url.removeprefix("http://").partition(":")
    body = b"params=%7B%7D"
    head = (
        f"POST /infer/{BRAIN}?image=a&output=image HTTP/1.1\r\nHost: {host}\r\n"
        "Content-Type: application/x-www-form-urlencoded\r\n"
        f"Content-Length: {len(body)}\r\n\r\n"
    )
    for _ in range(2):
        with socket.create_connection((host, int(port))) as client:
            client.sendall(head.encode() + body)
    with socket.create_connection((host, int(port))) as client:
        client.sendall(head.encode() + body[:4])  # in the middle of its request
    answer = process.post(f"/infer/{BRAIN}?image=a&output=json", data={"params": "{}"})
    assert answer.status_code == 200


def test_background_tasks_end(process: Process) -> None:
    def wait(path: str) -> dict[str, Any]:
        end = time.monotonic() + 240
        while time.monotonic() < end:
            task: dict[str, Any] = httpx.get(process.url + path, timeout=60).json()
            if task["status"] in ("DONE", "ERROR"):
                return task
            time.sleep(1)
        pytest.fail(f"{path} did not end")

    started = process.post(f"/train/{BRAIN}", json={"max_epochs": 1, "device": "cpu"})
    assert started.status_code == 200
    batch = process.post(f"/batch/infer/{BRAIN}?images=all", json={"device": "cpu"})
    assert batch.status_code == 200
    trained = wait("/train/")
    assert trained["status"] == "ERROR"  # there are no normal studies
    assert "Training takes normal" in "\n".join(trained["details"])
    assert wait("/batch/infer")["status"] == "DONE"
    labels = sorted(p.name for p in (process.studies / "labels" / "original").iterdir())
    assert labels == ["a.nii.gz", "b.nii.gz", "oblique.nii.gz", "permuted.nii.gz"]
