"""A series to a PACS, found there, processed, and its results back in the PACS and read again.

    python docs/examples/orthanc/round_trip.py SERIES MODEL OUTPUT [--bundle NAME] [--set NAME=VALUE]

Starts an Orthanc of its own on loopback (docs/pacs.md says what to install), stores the DICOM files
of the folder SERIES, lets ``multiad serve`` do the rest, reads the results back, and serves once
more to show that nothing appears twice.
"""

from __future__ import annotations

import argparse
import hashlib
import subprocess
import sys
import time
from pathlib import Path

from dicomweb_client import DICOMwebClient
from orthanc_server import orthanc
from pydicom import Dataset, dcmread
from pydicom.uid import generate_uid

MULTIAD = [sys.executable, "-c", "from multiad_med.cli import app; app()"]


def read_series(folder: Path) -> list[Dataset]:
    """The folder's objects. De-identified files without UIDs, which no PACS takes, are given some."""
    datasets = [dcmread(path) for path in sorted(folder.iterdir()) if path.is_file()]
    name = hashlib.sha256(b"".join(d.PixelData for d in datasets)).hexdigest()
    for dataset in datasets:
        if not dataset.SOPInstanceUID:
            dataset.SOPInstanceUID = dataset.file_meta.MediaStorageSOPInstanceUID
        for keyword in ("StudyInstanceUID", "SeriesInstanceUID"):
            if not dataset.get(keyword):
                setattr(dataset, keyword, generate_uid(entropy_srcs=[name, keyword]))
        if not dataset.get("PatientID"):
            dataset.PatientID = "round-trip"
    return datasets


def serve(url: str, arguments: argparse.Namespace) -> float:
    """Run ``multiad serve`` until everything is done; the seconds it took."""
    start = time.monotonic()
    settings = [part for pair in arguments.set for part in ("--set", pair)]
    kinds = [part for kind in arguments.kind for part in ("--kind", kind)]
    command = [*MULTIAD, "serve", url, "--bundle", arguments.bundle, "--model", arguments.model]
    options = ["--output", arguments.output, "--settle", "1", "--interval", "1", "--port", "0"]
    subprocess.run([*command, *options, *settings, *kinds, "--once"], check=True)
    return time.monotonic() - start


def series_of(client: DICOMwebClient, study: str) -> dict[str, tuple[str, int]]:
    """Modality and number of instances of a study's series, by UID."""
    found = client.search_for_series(study, fields=["NumberOfSeriesRelatedInstances"])
    return {
        s["0020000E"]["Value"][0]: (s["00080060"]["Value"][0], int(s["00201209"]["Value"][0]))
        for s in found
    }


def main() -> None:
    """Run the round trip; ends with an error where something is not as it should be."""
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("series", type=Path)
    parser.add_argument("model")
    parser.add_argument("output")
    parser.add_argument("--bundle", default="multiad_brain_mri")
    parser.add_argument("--set", action="append", default=[])
    parser.add_argument("--kind", action="append", default=[])
    arguments = parser.parse_args()

    datasets = read_series(arguments.series)
    study, source = datasets[0].StudyInstanceUID, datasets[0].SeriesInstanceUID
    with orthanc() as url:
        client = DICOMwebClient(url, timeout=300)
        start = time.monotonic()
        client.store_instances(datasets)
        seconds = time.monotonic() - start
        before = series_of(client, study)
        print(f"stored: {before[source][1]} instances of {before[source][0]} in {seconds:.1f} s")
        print(f"processed and stored back in {serve(url, arguments):.1f} s (start included)")
        after = series_of(client, study)
        for uid in sorted(after.keys() - before.keys()):
            first = client.retrieve_series(study, uid, media_types=(("application/dicom", "*"),))[0]
            modality, count = after[uid]
            print(f"read back: {modality}, {count} instance(s), {first.SOPClassUID.name}")
        if after.keys() == before.keys():
            raise SystemExit("No result came back.")
        serve(url, arguments)
        if series_of(client, study) != after:
            raise SystemExit("Results changed when served again.")
        print("served again: nothing new, nothing twice")


if __name__ == "__main__":
    main()
