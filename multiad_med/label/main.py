"""MONAI Label app of Multi-AD Med, copied here by ``multiad label init``."""

from multiad_med.label.app import MultiADApp

__all__ = ["MultiADApp"]  # MONAI Label takes the subclass of MONAILabelApp that it finds here
