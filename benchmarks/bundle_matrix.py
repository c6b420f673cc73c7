"""Every verb of every bundle on a tiny cohort, as a user on the command line runs it.

    python benchmarks/bundle_matrix.py OUTPUT [--bundles NAME ...] [--verbs NAME ...]

Works in OUTPUT, which also keeps each command's log, and prints a table: seconds where the verb went
well (about 10 of them are the start of Python with MONAI), FAILED where not. The status is then 1.
Training is done first in any case, since the other verbs need its model.
"""

from __future__ import annotations

import argparse
import subprocess
import sys
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path

ROOT = Path(__file__).parents[1]
sys.path.insert(0, str(ROOT))  # for the tiny cohorts, which the tests use too

from multiad_med.resources import bundle_path, config_files  # noqa: E402
from multiad_med.testing.cohorts import COHORTS, FAST, bundle_names  # noqa: E402

SCHEMA = ROOT / "tests" / "bundles" / "metadata_schema.json"
TIMEOUT_S = 600
DYNAMIC_BATCH = (
    "{'input_names': ['image'], 'output_names': ['pred'], 'dynamic_axes': {'image': {0: 'batch'}}}"
)
CHECK_PROPERTIES = """
import sys
from monai.bundle import create_workflow
from multiad_med.resources import config_files
for config in ("train.json", "inference.json", "evaluate.json"):
    flow = create_workflow(
        config_file=[f"{sys.argv[1]}/configs/{file}" for file in config_files(config)],
        workflow_type="train" if config == "train.json" else "infer",
        bundle_root=sys.argv[1], dataset_dir=sys.argv[2], size=64,
    )
    missing = flow.check_properties()
    assert not missing, (config, missing)
"""


@dataclass
class Workplace:
    """A bundle, its tiny cohort, and the folder in which its verbs run."""

    name: str
    folder: Path
    data: Path

    @property
    def bundle(self) -> Path:
        """Where the bundle is."""
        return bundle_path(self.name)

    @property
    def model(self) -> Path:
        """What training writes."""
        return self.folder / "models" / "model.pt"

    def monai(self, verb: str, *options: str, **named: object) -> list[str]:
        """``python -m monai.bundle VERB`` with options."""
        pairs = [f"--{key}={value}" for key, value in named.items()]
        return [sys.executable, "-m", "monai.bundle", verb, *options, *pairs]

    def run(self, run_id: str, *configs: str, output: str, **named: object) -> list[str]:
        """``python -m monai.bundle run``."""
        files = [str(self.bundle / "configs" / config) for config in configs]
        return self.monai(
            "run",
            run_id,
            bundle_root=self.bundle,
            config_file=files[0] if len(files) == 1 else files,
            dataset_dir=self.data,
            output_dir=self.folder / output,
            **FAST,
            **named,
        )

    def export(self, verb: str, file: str, **named: object) -> list[str]:
        """``ckpt_export`` or ``onnx_export`` of what training wrote."""
        return self.monai(
            verb,
            net_id="network_def",
            filepath=self.folder / "models" / file,
            ckpt_file=self.model,
            meta_file=self.bundle / "configs" / "metadata.json",
            config_file=self.bundle / "configs" / "inference.json",
            **named,
        )


class VerbError(RuntimeError):
    """A verb did not do what it should; the message says what."""


def call(place: Workplace, verb: str, command: Sequence[str]) -> str:
    """Run a command in the workplace and return what it printed."""
    log = place.folder / f"{verb}.log"
    with log.open("w", encoding="utf-8") as stream:
        status = subprocess.run(
            command, cwd=place.folder, stdout=stream, stderr=subprocess.STDOUT, timeout=TIMEOUT_S
        ).returncode
    text = log.read_text(encoding="utf-8", errors="replace")
    if status:
        last = (text.strip().splitlines() or ["nothing printed"])[-1]
        raise VerbError(f"status {status}: {last} ({log})")
    return text


def expect(place: Workplace, *patterns: str) -> None:
    """Refuse the end of a verb that left no file of a pattern."""
    for pattern in patterns:
        if not any(place.folder.glob(pattern)):
            raise VerbError(f"no {pattern} in {place.folder}")


def train(place: Workplace) -> None:
    """Two epochs."""
    command = place.run(
        "training", "train.json", output="logs", ckpt_dir=place.model.parent, max_epochs=2
    )
    call(place, "training", command)
    expect(place, "models/model.pt", "logs/events.*")


def resume(place: Workplace) -> None:
    """A training is killed after its first epoch and started again."""
    models = place.folder / "killed"
    command = place.run("training", "train.json", output="killed", ckpt_dir=models, max_epochs=20)
    with (place.folder / "killed.log").open("w") as stream:
        process = subprocess.Popen(command, cwd=place.folder, stdout=stream, stderr=stream)
    deadline = time.monotonic() + TIMEOUT_S
    while not (models / "checkpoint.pt").is_file() and process.poll() is None:
        if time.monotonic() > deadline:
            break
        time.sleep(0.02)
    process.kill()
    process.wait()
    if (models / "model.pt").exists():
        raise VerbError("the training ended before it could be killed")
    if "resumed from" not in call(place, "resume", command):
        raise VerbError("the second training did not resume")
    expect(place, "killed/model.pt")


def infer(place: Workplace) -> None:
    """Maps of the test studies."""
    call(
        place, "inference", place.run("inference", "inference.json", output="maps", **_model(place))
    )
    expect(place, "maps/**/*anomaly.json")


def evaluate(place: Workplace) -> None:
    """Metrics and report."""
    command = place.run(
        "evaluating",
        *config_files("evaluate.json"),
        output="evaluation",
        bootstrap=20,
        **_model(place),
    )
    call(place, "evaluating", command)
    expect(place, "evaluation/metrics.json", "evaluation/report.html")


def verify_metadata(place: Workplace) -> None:
    """The metadata against the staged schema."""
    meta = place.bundle / "configs" / "metadata.json"
    call(place, "verify_metadata", place.monai("verify_metadata", meta_file=meta, filepath=SCHEMA))


def verify_net_in_out(place: Workplace) -> None:
    """The network against the metadata."""
    configs = place.bundle / "configs"
    command = place.monai(
        "verify_net_in_out",
        "network_def",
        meta_file=configs / "metadata.json",
        config_file=configs / "inference.json",
        device="cpu",
    )
    call(place, "verify_net_in_out", command)


def check_properties(place: Workplace) -> None:
    """``create_workflow`` and ``check_properties`` of the three configs."""
    command = [sys.executable, "-c", CHECK_PROPERTIES, str(place.bundle), str(place.data)]
    call(place, "check_properties", command)


def export_torchscript(place: Workplace) -> None:
    """The model as TorchScript."""
    call(place, "ckpt_export", place.export("ckpt_export", "model.ts"))
    expect(place, "models/model.ts")


def export_onnx(place: Workplace) -> None:
    """The model as ONNX with a dynamic batch."""
    command = place.export(
        "onnx_export",
        "model.onnx",
        input_shape=f"[2, 3, {FAST['size']}, {FAST['size']}]",
        converter_kwargs=DYNAMIC_BATCH,
    )
    call(place, "onnx_export", command)
    expect(place, "models/model.onnx")


def infer_with_openvino(place: Workplace) -> None:
    """Inference by OpenVINO, which checks that its maps are the model's."""
    command = place.run(
        "inference", "inference.json", output="openvino", runtime="openvino", **_model(place)
    )
    call(place, "openvino", command)
    expect(place, "openvino/**/*anomaly.json")


def refuse_unknown_key(place: Workplace) -> None:
    """A key that no config has is an error that names the nearest one."""
    command = place.run("inference", "inference.json", output="maps", ckpt_pth="models/model.pt")
    try:
        call(place, "unknown_key", command)
    except VerbError as error:
        if "--ckpt_path" in str(error):
            return
        raise
    raise VerbError("--ckpt_pth was accepted")


def _model(place: Workplace) -> dict[str, Path]:
    return {"ckpt_path": place.model}


VERBS: dict[str, Callable[[Workplace], None]] = {
    "training": train,
    "inference": infer,
    "evaluating": evaluate,
    "resume": resume,
    "verify_metadata": verify_metadata,
    "verify_net_in_out": verify_net_in_out,
    "check_properties": check_properties,
    "ckpt_export": export_torchscript,
    "onnx_export": export_onnx,
    "openvino": infer_with_openvino,
    "unknown key": refuse_unknown_key,
}


def main() -> None:
    """Run what was asked for and print the table."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("output", type=Path)
    parser.add_argument("--bundles", nargs="+", choices=bundle_names(), default=bundle_names())
    parser.add_argument("--verbs", nargs="+", choices=list(VERBS), default=list(VERBS))
    args = parser.parse_args()
    cells: dict[tuple[str, str], str] = {}
    for name in args.bundles:
        folder = (args.output / name).resolve()
        folder.mkdir(parents=True)
        place = Workplace(name, folder, COHORTS[name](folder))
        for verb in dict.fromkeys(["training", *args.verbs]):
            start = time.perf_counter()
            try:
                VERBS[verb](place)
                cells[verb, name] = f"{time.perf_counter() - start:.0f} s"
            except (VerbError, subprocess.TimeoutExpired) as error:
                cells[verb, name] = "FAILED"
                print(f"{name}, {verb}: {error}", file=sys.stderr, flush=True)
    print("| verb | " + " | ".join(args.bundles) + " |")
    print("|---|" + "---|" * len(args.bundles))
    for verb in dict.fromkeys(verb for verb, _ in cells):
        print(f"| {verb} | " + " | ".join(cells[verb, name] for name in args.bundles) + " |")
    sys.exit("FAILED" in cells.values())


if __name__ == "__main__":
    main()
