"""Tiny cohorts, prepared slices and networks for tests and benchmarks, your own too.

Nothing of it is real data: shapes and texture from a fixed seed, made in a second.
"""

from multiad_med.testing.brains import head, make_brains, write_nifti
from multiad_med.testing.networks import TinyFeatures, tiny_multiad

__all__ = ["TinyFeatures", "head", "make_brains", "tiny_multiad", "write_nifti"]
