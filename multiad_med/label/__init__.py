"""The MONAI Label app: bundles as models for 3D Slicer and OHIF. Needs the extra ``label``.

``multiad label init`` copies the app and bundles into a folder, ``multiad label start`` serves it.
"""

import multiad_med.label.compat  # noqa: F401  (before anything of monailabel)
