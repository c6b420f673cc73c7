"""Federated training of the brain bundle, simulated in one process by MONAI's `MonaiAlgo`.

    python docs/examples/federated.py OUTPUT --sites SITE SITE ... [--rounds 8] [--settings size=128 ...]

Each SITE is a dataset_dir of the bundle: a folder of normal volumes, a datalist, or prepared slices.
No image leaves its site; each round every site trains the global student on its own normals, and the
mean of the students, weighted by iterations, is the next global one. OUTPUT/global.pt is the
federation's model; OUTPUT/SITE/models/model.pt is the same with thresholds of that site's normals.
"""

from __future__ import annotations

import argparse
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import monai.bundle
import torch
import yaml
from monai.fl.utils.constants import FlStatistics
from monai.fl.utils.exchange_object import ExchangeObject

from multiad_med.resources import bundle_path
from multiad_med.training.federated import FEDERATED_CONFIGS, site_client, weighted_mean
from multiad_med.utils.atomic import atomic_path

BUNDLE = "multiad_brain_mri"


def federate(
    output: Path, sites: Mapping[str, Path], *, rounds: int, settings: Mapping[str, Any]
) -> list[float]:
    """Train, and write the global model and each site's own.

    Args:
        output: folder of everything written.
        sites: names and dataset_dirs.
        rounds: of one local epoch each.
        settings: further ids of train.json.

    Returns:
        For each round, L_G of the global model on the held-out normals, mean over the sites.
    """
    own = {
        name: {
            **settings,
            "dataset_dir": str(data),
            "ckpt_dir": str(output / name / "models"),
            "output_dir": str(output / name / "logs"),
        }
        for name, data in sites.items()
    }
    clients = [site_client(BUNDLE, name, own[name], rounds=rounds) for name in sites]
    complete = {k: v.cpu().clone() for k, v in clients[0].trainer.network.state_dict().items()}
    weights = clients[0].get_weights().weights
    losses = []
    for number in range(1, rounds + 1):
        sent = []
        for client in clients:
            client.train(ExchangeObject(weights=weights))
            sent.append(client.get_weights())
        weights = weighted_mean(
            [s.weights for s in sent],
            [s.statistics[FlStatistics.NUM_EXECUTED_ITERATIONS] for s in sent],
        )
        held_out = [
            client.evaluate(ExchangeObject(weights=weights)).metrics["loss_distillation"]
            for client in clients
        ]
        losses.append(sum(held_out) / len(held_out))
        named = ", ".join(f"{name} {loss:.4f}" for name, loss in zip(sites, held_out, strict=True))
        print(f"round {number}: L_G of the global model on held-out normals: {named}")
    for client in clients:
        client.finalize()
    with atomic_path(output / "global.pt") as temporary:
        torch.save({**complete, **weights}, temporary)
    root = bundle_path(BUNDLE)
    for name in sites:
        monai.bundle.run(
            run_id="calibrating",
            config_file=[str(root / config) for config in FEDERATED_CONFIGS],
            bundle_root=str(root),
            logging_file=False,
            global_model=str(output / "global.pt"),
            **own[name],
        )
    return losses


def main() -> None:
    """Run."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("output", type=Path)
    parser.add_argument("--sites", type=Path, nargs="+", required=True)
    parser.add_argument("--rounds", type=int, default=8)
    parser.add_argument("--settings", nargs="*", default=[], metavar="ID=VALUE")
    given = parser.parse_args()
    sites = {f"site{i}": path.resolve() for i, path in enumerate(given.sites, start=1)}
    settings = {k: yaml.safe_load(v) for k, _, v in (s.partition("=") for s in given.settings)}
    federate(given.output.resolve(), sites, rounds=given.rounds, settings=settings)


if __name__ == "__main__":
    main()
