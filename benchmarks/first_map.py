"""How long it is from a folder of normal images to the first map, and how many words that takes.

Runs ``multiad train``, ``predict`` and ``evaluate`` as a user types them, one after the other, and prints
a Markdown table. Of anomalib's commands (from its documentation) only the words are counted.

    python benchmarks/first_map.py brains --normal NORMAL --new NEW --labelled LABELLED \\
        --domain brain_mri --output OUT [--set max_epochs=2 ...]
"""

from __future__ import annotations

import argparse
import shlex
import subprocess
import sys
import time
from pathlib import Path

ANOMALIB = {
    "train": "anomalib train --model Padim --data anomalib.data.Folder --data.name NAME "
    "--data.root ROOT --data.normal_dir GOOD --data.abnormal_dir BAD",
    "predict": "anomalib predict --model Padim --data NEW --ckpt_path MODEL",
    "evaluate": "anomalib test --model Padim --data anomalib.data.Folder --data.name NAME "
    "--data.root ROOT --data.normal_dir GOOD --data.abnormal_dir BAD --ckpt_path MODEL",
}
"""Volumes and prepared medical data it has no command for."""


def commands(options: argparse.Namespace) -> dict[str, list[str]]:
    """What is typed, by verb."""
    run, maps, report = (str(Path(options.output) / name) for name in ("run", "maps", "report"))
    settings = [word for setting in options.set for word in ("--set", setting)]
    model = f"{run}/model.pt"
    return {
        "train": ["multiad", "train", options.domain, options.normal, "-o", run, *settings],
        "predict": [
            *("multiad", "predict", options.new, "-m", model, "-o", maps),
            *options.predict,
        ],
        "evaluate": [
            *("multiad", "evaluate", options.labelled, "-m", model, "-o", report),
            *options.evaluate,
        ],
    }


def main() -> None:
    """Run the three commands and print the table."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawTextHelpFormatter
    )
    parser.add_argument("name", help="of the data, for the table")
    parser.add_argument("--domain", required=True)
    for folder in ("normal", "new", "labelled", "output"):
        parser.add_argument(f"--{folder}", required=True)
    parser.add_argument("--set", action="append", default=[], help="of the training")
    parser.add_argument("--predict", type=shlex.split, default=[], help="further words of predict")
    parser.add_argument(
        "--evaluate", type=shlex.split, default=[], help="further words of evaluate"
    )
    options = parser.parse_args()
    multiad = str(Path(sys.executable).with_name("multiad"))
    rows, begin = [], time.perf_counter()
    for verb, words in commands(options).items():
        start = time.perf_counter()
        print("+", shlex.join(words), flush=True)
        status = subprocess.run([multiad, *words[1:]]).returncode
        now = time.perf_counter()
        rows.append((verb, status, now - start, now - begin, len(words)))
    print(f"\n| {options.name} | status | seconds | since the start | words | words, anomalib |")
    print("|---|---|---|---|---|---|")
    for verb, status, seconds, since, count in rows:
        theirs = len(ANOMALIB[verb].split())
        print(f"| `{verb}` | {status} | {seconds:.0f} | {since:.0f} | {count} | {theirs} |")


if __name__ == "__main__":
    main()
