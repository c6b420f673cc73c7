"""Tiny cohorts, prepared slices and networks for tests and benchmarks, your own too.

None of it is real data: shapes and textures come from a fixed seed, within a second.
"""

from multiad_med.testing.brains import head, make_brains, write_nifti
from multiad_med.testing.networks import TinyFeatures, tiny_multiad

__all__ = ["TinyFeatures", "head", "make_brains", "tiny_multiad", "write_nifti"]
