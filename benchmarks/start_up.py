"""How many seconds ``multiad predict`` takes from its start to the first slices of one volume.

    python benchmarks/start_up.py [--volume VOLUME.nii.gz] [--model run/model.pt] [--repeats 5]

Prints the seconds until the network returned its first batch of slices, by repeat and their median; how
they are spent, with the processor's seconds beside the clock's; and the ten dearest packages by
``python -X importtime``, each without what it imports of others. Without a volume, one of BraTS size
is made; without a model, one of random weights. The first repeat warms the disk and is not counted.
"""

from __future__ import annotations

import argparse
import re
import statistics
import subprocess
import sys
import tempfile
import time
from ast import literal_eval
from collections import Counter
from pathlib import Path

MARK = "first slices at"
PROGRAM = f"""
import time
marks = []

def mark(part):
    marks.append((part, time.monotonic(), time.process_time()))

mark("Python")
from multiad_med.cli import app
mark("commands")
from multiad_med.utils import quick_start
import sys
import multiad_med.cli.predict
verb = sys.modules["multiad_med.cli.predict"]

def imported():
    quick_start.import_monai_quickly()
    mark("torch and MONAI")
    from multiad_med.inference.axial_inferer import AxialInferer
    call = AxialInferer.__call__

    def timed(self, inputs, network, *args, **kwargs):
        mark("model and volume")

        def first(*given, **named):
            result = network(*given, **named)
            if marks[-1][0] != "slices":
                mark("slices")
                print("{MARK}", marks, flush=True)
            return result

        return call(self, inputs, first, *args, **kwargs)

    AxialInferer.__call__ = timed

verb.import_monai_quickly = imported
app()
"""


def run(words: list[str], *options: str) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, *options, "-c", PROGRAM, *words]
    return subprocess.run(command, capture_output=True, text=True, check=True)


def spent(words: list[str]) -> dict[str, tuple[float, float]]:
    """Seconds by the clock and of the processor until the first slices, by part."""
    begin = time.monotonic()
    found = re.search(rf"{MARK} (\[.*\])", run(words).stdout)
    if found is None:
        raise RuntimeError("The network mapped no slice.")
    parts, before, used_before = {}, begin, 0.0
    for name, moment, used in literal_eval(found[1]):
        parts[name] = moment - before, used - used_before
        before, used_before = moment, used
    return parts


def dearest(words: list[str]) -> Counter[str]:
    """Seconds that each package's own modules take to import."""
    seconds: Counter[str] = Counter()
    lines = run(words, "-X", "importtime").stderr
    for own, module in re.findall(r"import time: +(\d+) \| +\d+ \| +(\w+)", lines):
        seconds[module] += int(own) / 1e6
    return seconds


def make_volume(folder: Path) -> Path:
    from preparation import make_brats

    make_brats(folder, 1)
    return next(folder.rglob("*_flair.nii.gz"))


def make_model(folder: Path) -> Path:
    from multiad_med.testing.cohorts import write_fake_model

    return write_fake_model("multiad_brain_mri", folder / "model.pt")


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawTextHelpFormatter
    )
    parser.add_argument("--volume", type=Path)
    parser.add_argument("--model", type=Path)
    parser.add_argument("--repeats", type=int, default=5)
    options = parser.parse_args()
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        volume = options.volume or make_volume(folder / "data")
        model = options.model or make_model(folder)
        rows = []
        for repeat in range(options.repeats + 1):
            words = ["predict", str(volume), "-m", str(model), "-o", str(folder / f"out{repeat}")]
            rows.append(spent(words))
        seconds = [sum(clock for clock, _ in row.values()) for row in rows[1:]]
        print("seconds to the first slices:", " ".join(f"{s:.2f}" for s in seconds))
        print(f"median {statistics.median(seconds):.2f}, of which (clock, processor)")
        for part in rows[0]:
            clock, used = (statistics.median(row[part][i] for row in rows[1:]) for i in (0, 1))
            print(f"  {clock:5.2f} {used:5.2f} {part}")
        words[-1] = str(folder / "traced")
        print("dearest imports (seconds, slower than without the trace):")
        for module, cost in dearest(words).most_common(10):
            print(f"  {cost:5.2f} {module}")


if __name__ == "__main__":
    main()
