"""Federated training of the brain bundle as an NVFlare job, run in its simulator.

    pip install -c constraints.txt nvflare
    python docs/examples/nvflare/job.py OUTPUT --sites SITE SITE ... [--rounds 8] [--size 256]

SITE as in docs/examples/federated.py. OUTPUT/global.pt is the federation's model.
"""

from __future__ import annotations

import argparse
import shutil
from pathlib import Path

from nvflare.app_opt.pt.recipes.fedavg import FedAvgRecipe
from nvflare.recipe import SimEnv
from nvflare.recipe.utils import set_per_site_config

from multiad_med.resources import read_config


def main() -> None:
    """Run."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("output", type=Path)
    parser.add_argument("--sites", type=Path, nargs="+", required=True)
    parser.add_argument("--rounds", type=int, default=8)
    parser.add_argument("--size", type=int, default=256)
    parser.add_argument("--batch_size", type=int, default=8)
    given = parser.parse_args()
    output = given.output.resolve()
    config = read_config("multiad_brain_mri", "train.json")
    common = f"--rounds {given.rounds} --size {given.size} --batch_size {given.batch_size}"
    sites = {f"site-{i}": path.resolve() for i, path in enumerate(given.sites, start=1)}
    recipe = FedAvgRecipe(
        name="multiad",
        min_clients=len(sites),
        num_rounds=given.rounds,
        # The server's network, teacher included; clients send the student's part of it.
        model={
            "class_path": "multiad_med.networks.build_multiad",
            "args": {key: config[key] for key in ("preset", "fused")},
        },
        train_script=str(Path(__file__).with_name("client.py")),
        key_metric="loss_distillation",
        key_metric_mode="min",
    )
    set_per_site_config(
        recipe,
        {
            name: {"train_args": f"--data {data} --output {output / name} {common}"}
            for name, data in sites.items()
        },
    )
    run = recipe.execute(SimEnv(clients=list(sites), workspace_root=str(output / "workspace")))
    (model,) = Path(run.get_result()).rglob("FL_global_model.pt")
    shutil.copy(model, output / "global.pt")


if __name__ == "__main__":
    main()
