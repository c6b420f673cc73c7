"""Memory that was freed is used again without asking the kernel, in threads too."""

import json
import platform
import subprocess
import sys

import pytest

CODE = """
import json, resource, sys, threading
import numpy as np
from multiad_med.utils.memory import keep_freed_memory

if sys.argv[1] == "kept":
    keep_freed_memory()
faults = []

def fill():
    for _ in range(5):
        before = resource.getrusage(resource.RUSAGE_SELF).ru_minflt
        np.ones(8_000_000)
        faults.append(resource.getrusage(resource.RUSAGE_SELF).ru_minflt - before)

thread = threading.Thread(target=fill)
thread.start()
thread.join()
fill()
print(json.dumps([faults[1:5], faults[6:]]))
"""


@pytest.mark.skipif(platform.libc_ver()[0] != "glibc", reason="glibc alone is told")
@pytest.mark.parametrize(("mode", "kept"), [("kept", True), ("as it is", False)])
def test_a_freed_array_is_the_place_of_the_next_one(mode: str, kept: bool) -> None:
    done = subprocess.run(
        [sys.executable, "-c", CODE, mode], capture_output=True, text=True, check=True
    )
    in_thread, in_main = json.loads(done.stdout)
    pages = 8_000_000 * 8 / 4096
    for faults in (in_thread, in_main):
        assert (max(faults) < pages / 100) is kept
