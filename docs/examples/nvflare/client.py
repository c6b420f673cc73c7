"""A site of the federation under NVFlare: its Client API around MONAI's `MonaiAlgo`."""

from __future__ import annotations

import argparse
from pathlib import Path

import nvflare.client as flare
from monai.fl.utils.constants import FlStatistics
from monai.fl.utils.exchange_object import ExchangeObject

from multiad_med.training.federated import site_client


def main() -> None:
    """Train whenever the server asks."""
    parser = argparse.ArgumentParser()
    parser.add_argument("--data", required=True, help="dataset_dir of this site")
    parser.add_argument("--output", required=True, help="folder that stays at this site")
    parser.add_argument("--rounds", type=int, required=True)
    parser.add_argument("--size", type=int, default=256)
    parser.add_argument("--batch_size", type=int, default=8)
    given = parser.parse_args()
    flare.init()
    settings = {
        "dataset_dir": given.data,
        "ckpt_dir": str(Path(given.output) / "models"),
        "output_dir": str(Path(given.output) / "logs"),
        "size": given.size,
        "batch_size": given.batch_size,
    }
    client = site_client("multiad_brain_mri", flare.get_site_name(), settings, rounds=given.rounds)
    while flare.is_running():
        received = flare.receive()
        weights = ExchangeObject(weights=received.params)
        metrics = client.evaluate(weights).metrics
        client.train(weights)
        sent = client.get_weights()
        flare.send(
            flare.FLModel(
                params_type=flare.ParamsType.FULL,
                params=sent.weights,
                metrics={"loss_distillation": float(metrics["loss_distillation"])},
                meta={
                    "NUM_STEPS_CURRENT_ROUND": sent.statistics[FlStatistics.NUM_EXECUTED_ITERATIONS]
                },
            )
        )
    client.finalize()


if __name__ == "__main__":
    main()
