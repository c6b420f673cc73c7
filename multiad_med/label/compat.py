"""Let MONAI Label 0.8 run with pydicom 3; imported before anything of ``monailabel``.

Its dependency pydicom-seg 0.4.1 imports ``pydicom._storage_sopclass_uids``, which pydicom 3 no longer
has (Project-MONAI/MONAILabel#1841). The names of its SOP classes are now in ``pydicom.uid``.
"""

from __future__ import annotations

import importlib.util
import sys
from types import ModuleType

import pydicom.uid

_REMOVED = "pydicom._storage_sopclass_uids"

if _REMOVED not in sys.modules and importlib.util.find_spec(_REMOVED) is None:
    _module = ModuleType(_REMOVED, "The UIDs of pydicom.uid.")
    _module.__dict__.update(
        {
            name: value
            for name, value in vars(pydicom.uid).items()
            if isinstance(value, pydicom.uid.UID)
        }
    )
    sys.modules[_REMOVED] = _module
