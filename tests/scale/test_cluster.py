"""A cluster that does not answer is refused at once; examples of clusters are well-formed."""

from __future__ import annotations

import os
import shutil
import socket
import subprocess
import sys
import time
from contextlib import suppress
from pathlib import Path

import pytest
import yaml

from multiad_med.scale.cluster import ray_cluster
from multiad_med.utils.errors import InputError
from tests.cli.runs import mistake

psutil = pytest.importorskip("psutil", reason="needs psutil")
ray = pytest.importorskip("ray", reason="needs the extra scale")

EXAMPLES = Path(__file__).parents[2] / "docs/examples"


@pytest.fixture
def nobody() -> str:
    """An address of this machine where nothing listens."""
    with socket.socket() as listener:
        listener.bind(("127.0.0.1", 0))
        return f"127.0.0.1:{listener.getsockname()[1]}"


def refused(address: str, match: str) -> None:
    start = time.monotonic()
    with pytest.raises(InputError, match=match) as told, ray_cluster(address):
        pass
    assert "ray start --head" in str(told.value)
    assert time.monotonic() - start < 20


def test_an_address_where_nothing_answers_is_refused(
    nobody: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    refused(nobody, f"--ray {nobody}: nothing answers there")
    monkeypatch.setenv("RAY_ADDRESS", nobody)
    refused("auto", f"--ray {nobody}: nothing answers there")


def test_what_is_for_one_cluster_is_not_handed_to_the_next(
    nobody: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / ".ray").mkdir()
    (tmp_path / ".ray/auth_token").write_text("f" * 64)
    monkeypatch.setenv("HOME", str(tmp_path))
    before = dict(os.environ)
    refused(nobody, "nothing answers there")
    assert dict(os.environ) == before


def test_a_cluster_that_asks_for_the_users_token_is_used(nobody: str, tmp_path: Path) -> None:
    # Ray keeps a token in the home of whoever used it before.
    (tmp_path / ".ray").mkdir()
    (tmp_path / ".ray/auth_token").write_text("f" * 64)
    home = {k: v for k, v in os.environ.items() if not k.startswith("RAY_")} | {
        "HOME": str(tmp_path)
    }
    port = nobody.rpartition(":")[2]
    ray_command = [str(Path(sys.executable).with_name("ray")), "start", "--head", "--block"]
    options = ["--port", port, "--num-cpus", "3", "--include-dashboard", "false"]
    program = (
        "import sys\n"
        "from multiad_med.scale.cluster import ray_cluster, workers_for\n"
        "with ray_cluster(sys.argv[1]):\n"
        "    import ray\n"
        "    monai = ray.remote(lambda: 'monai' in __import__('sys').modules)\n"
        "    print(workers_for('auto').count, ray.get(monai.remote()))\n"
    )
    head = subprocess.Popen([*ray_command, *options], env=home, stdout=subprocess.DEVNULL)
    try:
        end = time.monotonic() + 60
        while time.monotonic() < end:
            with suppress(OSError), socket.create_connection(("127.0.0.1", int(port)), 1):
                break
            time.sleep(0.2)
        done = subprocess.run(
            [sys.executable, "-c", program, nobody],
            env=home,
            capture_output=True,
            text=True,
            timeout=120,
        )
    finally:
        for process in [*psutil.Process(head.pid).children(recursive=True), head]:
            process.terminate()
        head.wait()
    assert done.stdout.splitlines()[-1:] == ["3 True"], done.stderr


@pytest.mark.parametrize("address", ["ray://head:10001", "head", "head:port", ":6379"])
def test_what_is_no_address_is_refused(address: str) -> None:
    refused(address, "is no address of a cluster's head")


def test_auto_without_a_cluster_is_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    def init(**options: object) -> None:  # a test beside this one may have a cluster
        raise ConnectionError("Could not find any running Ray instance.")

    monkeypatch.delenv("RAY_ADDRESS", raising=False)
    monkeypatch.setattr(ray, "init", init)
    refused("auto", "--ray auto: no Ray cluster answers")


def test_the_commands_end_with_one_line(model: Path, nobody: str, tmp_path: Path) -> None:
    (tmp_path / "in").mkdir()
    (tmp_path / "in/a.nii.gz").write_bytes(b"-")
    words = ("predict", tmp_path / "in", "-m", model, "-o", tmp_path / "out")
    assert "nothing answers there" in mistake(*words, "--ray", nobody)
    assert "multiad dicom" in mistake(*words, "--ray", "local", "--dicom", "sr")
    prepare = ("prepare", "volumes", "--source", tmp_path / "in", "-o", tmp_path / "slices")
    assert "--workers" in mistake(*prepare, "--ray", "local", "--workers", 2)
    evaluate = ("evaluate", tmp_path / "in", "-m", model, "-o", tmp_path / "report")
    assert "prepared slices" in mistake(*evaluate, "--ray", "local", "--part", "report")


def test_the_manifest_for_kuberay_is_one() -> None:
    documents = list(yaml.safe_load_all((EXAMPLES / "kuberay.yaml").read_text(encoding="utf-8")))
    (job,) = [one for one in documents if one["kind"] == "RayJob"]
    assert job["apiVersion"] == "ray.io/v1"
    assert "multiad predict" in job["spec"]["entrypoint"]
    assert "--ray auto" in job["spec"]["entrypoint"]
    spec = job["spec"]["rayClusterSpec"]
    groups = [spec["headGroupSpec"], *spec["workerGroupSpecs"]]
    containers = [group["template"]["spec"]["containers"][0] for group in groups]
    assert len({container["image"] for container in containers}) == 1
    mounts = [{m["mountPath"] for m in container["volumeMounts"]} for container in containers]
    assert all(mount == mounts[0] for mount in mounts)


def test_the_script_for_slurm_is_one() -> None:
    if not (bash := shutil.which("bash")):
        pytest.skip("needs bash")
    subprocess.run([bash, "-n", EXAMPLES / "slurm.sh"], check=True)
    text = (EXAMPLES / "slurm.sh").read_text(encoding="utf-8")
    assert "#SBATCH" in text
    assert '/multiad" predict' in text
