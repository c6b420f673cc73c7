"""Prepared slices of the demonstration's cohort, for trials.py --model.

    python benchmarks/demo_store.py DEMO OUTPUT

DEMO is what `multiad demo -o DEMO` wrote.
"""

from __future__ import annotations

import argparse
import csv
from pathlib import Path

from multiad_med.data import load_datalist
from multiad_med.preparation import load_recipe, prepare


def main() -> None:
    """Prepare the cohort."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("demo", type=Path)
    parser.add_argument("output", type=Path)
    args = parser.parse_args()
    columns = ["image", "label", "subject", "split", "anomalous"]
    table = args.demo.resolve() / "cohort" / "table.csv"
    with table.open("w", newline="") as file:
        writer = csv.DictWriter(file, columns, extrasaction="ignore")
        writer.writeheader()
        for split, items in load_datalist(table.parent).items():
            for item in items:
                normal = "" if "label" in item else "false"
                writer.writerow(item | {"split": split, "anomalous": normal})
    print(prepare(load_recipe("volumes", {"kind": "mr"}), source=table, target=args.output))


if __name__ == "__main__":
    main()
