"""The demonstration, which needs no data of your own."""

from multiad_med.demo.cohort import Cohort, make_cohort
from multiad_med.demo.demonstration import run_demo

__all__ = [
    "Cohort",
    "make_cohort",
    "run_demo",
]
