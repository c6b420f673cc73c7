"""What README shows runs."""

from __future__ import annotations

import re
from pathlib import Path

README = (Path(__file__).parents[1] / "README.md").read_text(encoding="utf-8")


def test_the_two_commands_keep_their_form() -> None:
    setup = "python3 -m venv .venv && .venv/bin/pip install -c constraints.txt "
    assert f"{setup}. && .venv/bin/multiad demo --output demo\n" in README
    assert f"{setup}-e '.[test]' && .venv/bin/pytest\n" in README


def test_python_example_runs_and_gives_a_map() -> None:
    (code,) = re.findall(r"```python\n(.*?)```", README, flags=re.DOTALL)
    scope: dict[str, object] = {}
    exec(code.replace("rand(8, 3, 256, 256)", "rand(8, 3, 64, 64)"), scope)
    anomaly_map = scope["anomaly_map"]
    assert anomaly_map.shape == (8, 1, 64, 64)
    assert float(anomaly_map.min()) >= 0
    assert float(anomaly_map.max()) < 1


def test_linked_files_exist() -> None:
    root = Path(__file__).parents[1]
    for target in re.findall(r"\]\((?!http)([^)#]+)\)", README):
        assert (root / target).exists(), target
