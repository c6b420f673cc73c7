"""An Orthanc of one's own for a while: on loopback, with nothing kept."""

from __future__ import annotations

import json
import os
import shutil
import socket
import subprocess
import tempfile
import time
import urllib.error
import urllib.request
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

PLUGINS = Path("/usr/share/orthanc/plugins")
PROGRAM = shutil.which("Orthanc", path=f"{os.environ.get('PATH', '')}:/usr/sbin:/usr/local/sbin")


def free_port() -> int:
    """A port of loopback that nobody listens on now."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


def missing() -> str:
    """What is not installed, empty if all is."""
    if PROGRAM is None:
        return "Orthanc is not installed (Debian: apt-get install orthanc)"
    if not (PLUGINS / "libOrthancDicomWeb.so").is_file():
        return "Orthanc's DICOMweb is not installed (Debian: apt-get install orthanc-dicomweb)"
    return ""


def configuration(folder: Path, port: int) -> dict[str, object]:
    """DICOMweb only: the DICOM port, which would listen on every address, is off."""
    return {
        "Name": "round trip",
        "StorageDirectory": str(folder / "storage"),
        "IndexDirectory": str(folder / "storage"),
        "HttpPort": port,
        "HttpBindAddresses": ["127.0.0.1"],  # known to Orthanc from 1.12 on
        "RemoteAccessAllowed": False,  # which answers nobody but this host
        "AuthenticationEnabled": False,
        "DicomServerEnabled": False,
        "OverwriteInstances": False,
        "Plugins": [str(PLUGINS / "libOrthancDicomWeb.so")],
        "DicomWeb": {"Enable": True, "Root": "/dicom-web/"},
    }


@contextmanager
def orthanc() -> Iterator[str]:
    """Run Orthanc; gives the address of its DICOMweb service.

    Raises:
        RuntimeError: when it is not installed, or does not start within 30 seconds.
    """
    if reason := missing():
        raise RuntimeError(reason)
    with tempfile.TemporaryDirectory(prefix="orthanc-") as name:
        folder, port = Path(name), free_port()
        (folder / "orthanc.json").write_text(json.dumps(configuration(folder, port)))
        with (folder / "log").open("w") as log:
            server = subprocess.Popen(
                [str(PROGRAM), str(folder / "orthanc.json")], stdout=log, stderr=log
            )
        try:
            _wait(server, f"http://127.0.0.1:{port}/system", folder / "log")
            yield f"http://127.0.0.1:{port}/dicom-web"
        finally:
            server.terminate()
            server.wait()


def _wait(server: subprocess.Popen[bytes], address: str, log: Path) -> None:
    end = time.monotonic() + 30
    while time.monotonic() < end and server.poll() is None:
        try:
            urllib.request.urlopen(address, timeout=5).close()
        except (urllib.error.URLError, OSError):
            time.sleep(0.1)
        else:
            return
    raise RuntimeError(f"Orthanc did not start:\n{log.read_text()[-2000:]}")
