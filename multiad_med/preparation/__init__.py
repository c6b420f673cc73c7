"""From the files of a data set, as published, to prepared slices: recipes and how they are run."""

from typing import Any

from multiad_med._moved import moved_name
from multiad_med.preparation.image_splits import load_images
from multiad_med.preparation.network_size import network_input, recommended_size
from multiad_med.preparation.png_export import ExportLayout, export_png
from multiad_med.preparation.recipe_run import PreparationError, Summary, prepare
from multiad_med.preparation.recipes import Recipe, RecipeError, load_recipe, recipe_names
from multiad_med.preparation.sheet import save_contact_sheet
from multiad_med.preparation.sources import StudyKind, find_nifti_and_dicom, load_studies

__all__ = [
    "ExportLayout",
    "PreparationError",
    "Recipe",
    "RecipeError",
    "StudyKind",
    "Summary",
    "export_png",
    "find_nifti_and_dicom",
    "load_images",
    "load_recipe",
    "load_studies",
    "network_input",
    "prepare",
    "recipe_names",
    "recommended_size",
    "save_contact_sheet",
]


def __getattr__(name: str) -> Any:  # names that have changed
    return moved_name(__name__, name)
