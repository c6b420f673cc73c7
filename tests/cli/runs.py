"""How tests run ``multiad``."""

from __future__ import annotations

from click.testing import Result
from typer.testing import CliRunner

from multiad_med.cli import app

__all__ = ["mistake", "multiad"]


def multiad(*words: object) -> Result:
    """Run a command line in this process; a fault of the program is raised."""
    result = CliRunner().invoke(app, [str(word) for word in words], prog_name="multiad")
    if result.exception is not None and not isinstance(result.exception, SystemExit):
        raise result.exception
    return result


def mistake(*words: object) -> str:
    """What a command line with a mistake says: one line on stderr, with status 2."""
    result = multiad(*words)
    assert result.exit_code == 2, result.output
    (line,) = [text for text in result.stderr.splitlines() if text.startswith("Error: ")]
    assert result.stderr.rstrip().endswith(line)  # the reason is the last line
    assert "Traceback" not in result.output
    return line
