"""Recipes: MONAI configs that say how a data set becomes slices."""

from __future__ import annotations

import hashlib
import json
import re
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from monai.bundle import ConfigParser

from multiad_med import __version__
from multiad_med.data.study_files import DatalistError
from multiad_med.resources import recipes_dir
from multiad_med.utils.configs import literal
from multiad_med.utils.errors import FileError, MultiADError, reader_errors, user_error

__all__ = ["Recipe", "RecipeError", "load_recipe", "recipe_names"]

REQUIRED = ("title", "about", "modality", "upright", "bits", "items", "splits", "transforms")
_NOT_SETTABLE = {*REQUIRED, "base", "choices", "imports", "source", "slice_splits"}


class RecipeError(MultiADError, ValueError):
    """A recipe does not exist, is incomplete, or has no such setting."""


@contextmanager
def _own_errors(path: Path) -> Iterator[None]:
    """Raise a component's own error, instead of MONAI's that it could not be instantiated."""
    try:
        yield
    except RuntimeError as error:
        known = user_error(error)
        if known is None:
            raise
        if isinstance(known, (DatalistError, FileError)):
            raise known from error
        raise RecipeError(f"{path}: {known}") from error


def _with_bases(path: Path) -> list[Path]:
    """Return a recipe's file, after that of its ``base`` if it names one, and so on.

    The base is a file below the recipe's own folder, or below that of the package's recipes.
    """
    base = ConfigParser.load_config_file(str(path)).get("base")
    if base is None:
        return [path]
    places = [folder / base for folder in (path.parent, recipes_dir())]
    found = next((place for place in places if place.is_file() and place != path), None)
    if found is None:
        raise RecipeError(f"{path}: its base {base} is none of {[str(p) for p in places]}.")
    return [*_with_bases(found), path]


class Recipe:
    """One recipe with its settings.

    Args:
        path: YAML or JSON file; it adds to the recipe that it names as its ``base``, if any.
        settings: values that replace the recipe's own, by name.

    Attributes:
        name: file name without suffix.
        title, about, modality: for people.
        upright: whether slices are stored as they are shown, rows from above; those of RAS
            volumes are not (first axis to the right, second to the front).
        bits: of the stored values.

    Raises:
        RecipeError: when the file is no complete recipe, or a setting is unknown.
    """

    def __init__(self, path: Path, settings: Mapping[str, Any] | None = None) -> None:
        self.path = path
        self.name = path.stem
        with reader_errors(path, RecipeError, "not a readable recipe"):
            files = [str(file) for file in _with_bases(path)]
            self.config: dict[str, Any] = ConfigParser.load_config_files(files)
        missing = [key for key in REQUIRED if key not in self.config]
        if missing:
            raise RecipeError(f"{path}: the recipe lacks {missing}.")
        self._given = tuple(settings or ())
        for key, value in (settings or {}).items():
            if key not in self.settings:
                raise RecipeError(
                    f"The recipe {self.name} has no setting {key!r}; it has {sorted(self.settings)}."
                )
            allowed = self.config.get("choices", {}).get(key)
            if allowed is not None and value not in allowed:
                raise RecipeError(f"{key} is one of {allowed}, got {value!r}.")
            self.config[key] = value
        self.title = str(self.config["title"])
        self.about = str(self.config["about"]).strip()
        self.modality = str(self.config["modality"])
        self.upright = bool(self.config["upright"])
        self.bits = int(self.config["bits"])

    @property
    def settings(self) -> dict[str, Any]:
        """Names and values that may be set."""
        return {
            key: value
            for key, value in self.config.items()
            if key not in _NOT_SETTABLE and not (isinstance(value, dict) and "_target_" in value)
        }

    @property
    def sha256(self) -> str:
        """Hash of what decides how a study's slices look: the transforms and the settings they use."""
        transforms = json.dumps(self.config["transforms"], default=str)
        used = {name: self.config.get(name) for name in re.findall(r"@(\w+)", transforms)}
        parts = [__version__, self.bits, transforms, used]
        text = json.dumps(parts, sort_keys=True, default=str)
        return hashlib.sha256(text.encode()).hexdigest()

    def _parser(self, source: str | Path) -> ConfigParser:
        given = {key: literal(self.config[key]) for key in self._given}
        return ConfigParser({**self.config, **given, "source": literal(str(source))})

    def splits(self, source: str | Path) -> dict[str, list[dict[str, Any]]]:
        """Find the studies in ``source`` and divide them.

        Raises:
            DatalistError: when the folder does not hold this data set, or the split is faulty.
        """
        parser = self._parser(source)
        with _own_errors(self.path):
            items: Sequence[Mapping[str, Any]] = parser.get_parsed_content("items")
            divide: Callable[..., Any] = parser.get_parsed_content("splits")
            return divide(items)

    def transforms(self, source: str | Path) -> Callable[[Mapping[str, Any]], dict[str, Any]]:
        """Return the transforms from an item to its slices, see :func:`multiad_med.data.write_study`."""
        with _own_errors(self.path):
            return self._parser(source).get_parsed_content("transforms")

    def slice_splits(self, rows: list[dict[str, Any]]) -> list[dict[str, Any]]:
        """Return the rows of the index, moved to other splits where a published split goes by slices."""
        if "slice_splits" not in self.config:
            return rows
        move = self._parser("").get_parsed_content("slice_splits")
        return move(rows)


def recipe_names() -> list[str]:
    """Return the names of the recipes that come with the package."""
    return sorted(path.stem for path in recipes_dir().glob("*.yaml"))


def load_recipe(name: str | Path, settings: Mapping[str, Any] | None = None) -> Recipe:
    """Return a recipe by its name, or by the path of a file of one's own.

    Raises:
        RecipeError: on an unknown name or setting, or an incomplete file.
    """
    path = Path(name)
    if path.suffix not in (".yaml", ".yml", ".json"):
        path = recipes_dir() / f"{name}.yaml"
    if not path.is_file():
        raise RecipeError(
            f"No recipe {str(name)!r}; choose one of {recipe_names()}, or give the path of a YAML file."
        )
    return Recipe(path, settings)
