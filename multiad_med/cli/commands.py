"""How ``multiad`` ends: one line for what a user can mend, and the exit status."""

from __future__ import annotations

import difflib
import re
import sys
from collections.abc import Sequence
from typing import Any, cast

import typer
from typer.core import TyperGroup

__all__ = ["Commands", "DefaultCommands", "PartlyFailedError", "new_app"]

from multiad_med.utils.errors import MultiADError, last_line, user_error

DEBUG = "--debug"
_USAGE_ERROR: Any = typer.BadParameter.__mro__[1]


class PartlyFailedError(MultiADError):
    """Some studies failed, the others are done; a command ends with status 1."""


class Commands(TyperGroup):
    """Run a verb: a user's mistake is one line and status 2, Ctrl-C is 130; a fault keeps its trace.

    ``--debug``, wherever it stands, shows the trace of a mistake too.
    """

    def main(
        self,
        args: Sequence[str] | None = None,
        prog_name: str | None = None,
        complete_var: str | None = None,
        standalone_mode: bool = True,
        windows_expand_args: bool = True,
        **extra: Any,
    ) -> Any:
        """Run a command line and end with its status."""
        words = list(sys.argv[1:] if args is None else args)
        end = words.index("--") if "--" in words else len(words)
        debug = DEBUG in words[:end]
        words[:end] = [word for word in words[:end] if word != DEBUG]
        try:
            status = super().main(words, prog_name, complete_var, standalone_mode=False, **extra)
        except typer.Abort:
            status = 1
        except Exception as error:  # of which all but a user's mistakes are raised again
            told = _told(error)
            if told is None or debug:
                raise
            typer.echo(told, err=True)
            status = 1 if isinstance(user_error(error), PartlyFailedError) else 2
        if standalone_mode:
            sys.exit(status)
        return status


class DefaultCommands(TyperGroup):
    """A verb with a default sub-command, for a first word that names none."""

    default = "run"

    def parse_args(self, ctx: Any, args: list[str]) -> list[str]:
        """Insert the name of the default sub-command where none is named."""
        if args and args[0] not in self.commands and args[0] not in ctx.help_option_names:
            args = [self.default, *args]
        return super().parse_args(ctx, args)


def new_app(**about: Any) -> typer.Typer:
    """Return a group of commands, which prints its help when it is called without any."""
    return typer.Typer(
        no_args_is_help=True, add_completion=False, pretty_exceptions_enable=False, **about
    )


def _told(error: Any) -> str | None:
    """Return the message of a user's mistake; None for a fault of the program."""
    if isinstance(error, _USAGE_ERROR):
        if type(error).__name__ == "NoArgsIsHelpError":
            return str(cast(Any, error).format_message())
        return _usage(error)
    known = user_error(error)
    return None if known is None else last_line(known)


def _usage(error: Any) -> str:
    """Describe a wrong command line in one line, with the nearest choice and where to read on."""
    message = " ".join(error.format_message().split()).replace("Value error, ", "")
    if chosen := re.search(r"'([^']*)' is not one of (.*)", message):
        near = difflib.get_close_matches(chosen[1], re.findall(r"'([^']*)'", chosen[2]), n=1)
        message += f" Did you mean {near[0]}?" if near else ""
    path = error.ctx.command_path if error.ctx else "multiad"
    return f"Error: {message} See `{path} --help`."
