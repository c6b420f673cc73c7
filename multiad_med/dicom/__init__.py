"""DICOM: series read, results written."""
