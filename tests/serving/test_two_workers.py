"""50 studies in a real PACS, two real workers, one killed in the middle: nothing lost, nothing twice."""

from __future__ import annotations

import os
import signal
from collections import Counter
from pathlib import Path

import pytest
from pydicom import dcmread

from multiad_med.preparation.sources import StudyKind
from multiad_med.serving import DicomwebSource, StudyLedger
from tests.dicom_files import save
from tests.serving.pacs import head_series, needs_orthanc
from tests.serving.test_service import Service, serving

pytestmark = pytest.mark.slow

STUDIES = [str(number) for number in range(50)]


def kill_in_the_middle(service: Service, after: int) -> str:
    """Kill a worker, once it has done so many studies, while it is at one; that study's hash."""
    while True:
        service.wait("over", after)
        service.wait("begun", len(service.events("over")) + 1)
        service.process.send_signal(signal.SIGSTOP)
        os.waitid(os.P_PID, service.process.pid, os.WSTOPPED)
        begun, over = service.events("begun"), service.events("over")
        if len(begun) > len(over):
            assert service.end(signal.SIGKILL) == -signal.SIGKILL
            return str(begun[-1]["study"])
        service.process.send_signal(signal.SIGCONT)


@needs_orthanc
def test_50_studies_two_workers_one_killed(orthanc: str, model: Path, tmp_path: Path) -> None:
    pytest.importorskip("highdicom", reason="needs the extra dicom")
    pacs = DicomwebSource(orthanc, kind=StudyKind.MR, folder=tmp_path / "spool", settle=0)
    for number in STUDIES:
        folder = tmp_path / "sent" / number
        series = head_series(number, seed=int(number), slices=4)
        pacs.store(sorted(save(series, folder).iterdir()))

    options = ("--settle", "0.1", "--lease", "3", "--kind", "sr", "--once")
    with (
        serving(orthanc, model, tmp_path / "out", *options) as killed,
        serving(orthanc, model, tmp_path / "out", *options) as other,
    ):
        other.wait("ready")
        study = kill_in_the_middle(killed, after=5)
        assert other.end() == 0
    done_by = [[e["study"] for e in s.events("over")] for s in (killed, other)]
    assert study not in done_by[0]
    assert study in done_by[1]
    assert len(done_by[0]) >= 5
    assert sorted(Counter([*done_by[0], *done_by[1]]).values()) == [1] * 50
    assert StudyLedger(tmp_path / "out/ledger.sqlite").counts()["done"] == 50

    found = pacs._client.search_for_series(fields=["NumberOfSeriesRelatedInstances"])
    kinds = Counter((s["0020000D"]["Value"][0], s["00080060"]["Value"][0]) for s in found)
    expected = {(f"1.2.3.{n}", kind): 1 for n in STUDIES for kind in ("MR", "SR")}
    assert kinds == expected
    objects = Counter(s["00080060"]["Value"][0] for s in found if s["00201209"]["Value"] == [1])
    assert objects == {"SR": 50}
    for number in STUDIES:
        written = tmp_path / f"out/results/1.2.3.{number}.1_anomaly_dicom/sr.dcm"
        assert dcmread(written).StudyInstanceUID == f"1.2.3.{number}"
    assert list((tmp_path / "out/spool").iterdir()) == []
