"""Where the bundles are, in a source tree and in an installed package."""

from __future__ import annotations

from pathlib import Path

__all__ = ["bundle_path", "bundles_dir"]


def bundles_dir() -> Path:
    """Folder of the bundles: inside the installed package, or beside it in a source tree.

    Raises:
        FileNotFoundError: when neither exists.
    """
    package = Path(__file__).parent
    for folder in (package / "bundles", package.parent / "bundles"):
        if folder.is_dir():
            return folder
    raise FileNotFoundError(f"No bundles beside or inside {package}; install the package again.")


def bundle_path(name: str) -> Path:
    """Folder of one bundle.

    Raises:
        ValueError: on an unknown name.
    """
    folder = bundles_dir() / name
    if not (folder / "configs").is_dir():
        known = sorted(p.name for p in bundles_dir().iterdir() if (p / "configs").is_dir())
        raise ValueError(f"Unknown bundle {name!r}; choose one of {known}.")
    return folder
