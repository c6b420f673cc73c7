"""A series to a PACS, found there, processed, and its results back in the PACS and read again.

    python docs/examples/orthanc/round_trip.py SERIES MODEL OUTPUT [--bundle NAME] [--set NAME=VALUE]

Starts an Orthanc of its own on loopback (docs/pacs.md says what to install), stores the DICOM files
of the folder SERIES, lets ``multiad serve`` do the rest, reads the results back and compares them with
what was written, and serves again from nothing to show that no result appears twice.
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


def serve(url: str, output: Path, arguments: argparse.Namespace) -> float:
    """Run ``multiad serve`` until everything is done; the seconds it took."""
    start = time.monotonic()
    settings = [part for pair in arguments.set for part in ("--set", pair)]
    kinds = [part for kind in arguments.kind for part in ("--kind", kind)]
    command = [*MULTIAD, "serve", url, "--bundle", arguments.bundle, "--model", arguments.model]
    options = ["--output", str(output), "--settle", "1", "--interval", "1", "--port", "0"]
    subprocess.run([*command, *options, *settings, *kinds, "--once"], check=True)
    return time.monotonic() - start


def series_of(client: DICOMwebClient, study: str) -> dict[str, tuple[str, int]]:
    """Modality and number of instances of a study's series, by UID."""
    found = client.search_for_series(study, fields=["NumberOfSeriesRelatedInstances"])
    return {
        s["0020000E"]["Value"][0]: (s["00080060"]["Value"][0], int(s["00201209"]["Value"][0]))
        for s in found
    }


def results(output: Path) -> list[Path]:
    """DICOM files that ``multiad serve`` wrote."""
    return sorted(output.rglob("*.dcm"))


def main() -> None:
    """Run the round trip; ends with an error where something is not as it should be."""
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("series", type=Path)
    parser.add_argument("model")
    parser.add_argument("output", type=Path)
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
        seconds = serve(url, arguments.output / "first", arguments)
        print(f"processed and stored back in {seconds:.1f} s, start included")
        after = series_of(client, study)
        written = {d.SOPInstanceUID: d for d in map(dcmread, results(arguments.output / "first"))}
        for uid in sorted(after.keys() - before.keys()):
            objects = client.retrieve_series(study, uid, media_types=(("application/dicom", "*"),))
            if any(dataset != written.pop(dataset.SOPInstanceUID) for dataset in objects):
                raise SystemExit(f"{uid} is not what was written.")
            print(f"read back as written: {objects[0].SOPClassUID.name}, {len(objects)} object(s)")
        if written or after.keys() == before.keys():
            raise SystemExit("Not all results came back.")
        serve(url, arguments.output / "again", arguments)
        if series_of(client, study) != after:
            raise SystemExit("Results changed when served again.")
        print("served again from nothing: no result appears twice")


if __name__ == "__main__":
    main()
