"""`--tracking mlflow` on the bundle, against a real MLflow server on loopback."""

from __future__ import annotations

import json
import socket
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path
from urllib.error import URLError
from urllib.request import ProxyHandler, build_opener

import monai.bundle
import pytest

from multiad_med.resources import bundle_path

mlflow = pytest.importorskip("mlflow", reason="needs the extra `tracking`")

ROOT = bundle_path("multiad_brain_mri")


def _free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


@pytest.fixture
def server(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[str]:
    """Address of a running MLflow server with a database and artifacts of its own."""
    for name in ("NO_PROXY", "no_proxy"):
        monkeypatch.setenv(name, "127.0.0.1")
    monkeypatch.delenv("MLFLOW_TRACKING_URI", raising=False)
    port = _free_port()
    command = [sys.executable, "-m", "mlflow", "server", "--host", "127.0.0.1", "--port", str(port)]
    command += ["--backend-store-uri", f"sqlite:///{tmp_path}/tracking.db", "--workers", "1"]
    command += ["--artifacts-destination", str(tmp_path / "artifacts")]
    log = (tmp_path / "server.log").open("w")
    process = subprocess.Popen(command, cwd=tmp_path, stdout=log, stderr=subprocess.STDOUT)
    address = f"http://127.0.0.1:{port}"
    opener = build_opener(ProxyHandler({}))
    try:
        for _ in range(240):
            if process.poll() is not None:
                break
            try:
                opener.open(f"{address}/health", timeout=1)
                break
            except (URLError, OSError):
                time.sleep(0.5)
        else:
            pytest.fail(f"no MLflow server: {(tmp_path / 'server.log').read_text()[-2000:]}")
        assert process.poll() is None, (tmp_path / "server.log").read_text()[-2000:]
        yield address
    finally:
        process.terminate()
        process.wait(timeout=30)
        log.close()


def test_a_run_has_its_parameters_curves_and_configuration(
    server: str, cohort: Path, tmp_path: Path
) -> None:
    config = tmp_path / "executed.json"
    monai.bundle.run(
        run_id="training",
        config_file=str(ROOT / "configs" / "train.json"),
        logging_file=False,
        bundle_root=str(ROOT),
        dataset_dir=str(cohort),
        ckpt_dir=str(tmp_path / "models"),
        output_dir=str(tmp_path / "out"),
        max_epochs=2,
        batch_size=8,
        size=64,
        device="$torch.device('cpu')",
        tracking="mlflow",
        tracking_uri=server,
        experiment_name="brains",
        run_name="first",
        save_execute_config=str(config),
    )
    client = mlflow.MlflowClient(tracking_uri=server)
    experiment = client.get_experiment_by_name("brains")
    (run,) = client.search_runs(experiment.experiment_id)
    assert run.info.run_name == "first"
    assert run.info.status == "FINISHED"
    assert run.data.params["max_epochs"] == "2"
    iterations = 2 * int(run.data.params["epoch_length"])

    def steps(metric: str) -> list[int]:
        return [point.step for point in client.get_metric_history(run.info.run_id, metric)]

    each = list(range(1, iterations + 1))
    assert steps("train_loss") == steps("lr_group_0") == each
    assert steps("train_loss_mean") == steps("loss_distillation") == [1, 2]
    losses = client.get_metric_history(run.info.run_id, "train_loss")
    mean = client.get_metric_history(run.info.run_id, "train_loss_mean")[0].value
    first = [point.value for point in losses[: iterations // 2]]
    assert mean == pytest.approx(sum(first) / len(first), rel=1e-4)
    (artifact,) = client.list_artifacts(run.info.run_id)
    assert artifact.path == "executed.json"
    assert json.loads(config.read_text())["max_epochs"] == 2
