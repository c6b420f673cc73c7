"""Archives: the work of ``predict``, ``prepare`` and ``evaluate`` by Ray, on a machine or a cluster."""

from multiad_med.scale.predict import predict_studies

__all__ = ["predict_studies"]
