"""Headless Chromium without a network, driven by the DevTools protocol over a pair of pipes."""

from __future__ import annotations

import base64
import io
import json
import os
import select
import shutil
import subprocess
import time
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from numpy.typing import NDArray
from PIL import Image

_OPTIONS = (
    "--headless",
    "--no-sandbox",
    "--no-first-run",
    "--disable-dev-shm-usage",
    "--enable-unsafe-swiftshader",
    "--use-angle=swiftshader",
    "--host-resolver-rules=MAP * ~NOTFOUND",
    "--window-size=1300,900",
    "--remote-debugging-pipe",
)


class Chromium:
    """A browser with one page.

    Attributes:
        requests: URLs that the page asked for.
        messages: what it wrote to its console as an error, or threw.
    """

    def __init__(self, profile: Path) -> None:
        program = shutil.which("chromium") or shutil.which("google-chrome")
        if program is None:
            pytest.skip("Chromium is not installed")
        to_browser, self._write = os.pipe()
        self._read, from_browser = os.pipe()

        def pipes() -> None:  # Chromium reads descriptor 3 and writes 4
            first, second = os.dup(to_browser), os.dup(from_browser)
            os.dup2(first, 3)
            os.dup2(second, 4)

        self._process = subprocess.Popen(
            [program, *_OPTIONS, f"--user-data-dir={profile}", "about:blank"],
            preexec_fn=pipes,
            close_fds=False,
            stdout=subprocess.DEVNULL,
            stderr=subprocess.DEVNULL,
        )
        os.close(to_browser)
        os.close(from_browser)
        self._buffer, self._count, self._session = b"", 0, ""
        self.requests: list[str] = []
        self.messages: list[str] = []
        pages = self.call("Target.getTargets")["targetInfos"]
        target = next(page["targetId"] for page in pages if page["type"] == "page")
        attached = self.call("Target.attachToTarget", targetId=target, flatten=True)
        self._session = attached["sessionId"]
        for domain in ("Page", "Runtime", "Network", "Log"):
            self.call(f"{domain}.enable")

    def _next(self, seconds: float) -> dict[str, Any]:
        end = time.monotonic() + seconds
        while b"\0" not in self._buffer:
            ready, _, _ = select.select([self._read], [], [], max(0, end - time.monotonic()))
            block = os.read(self._read, 1 << 20) if ready else b""
            if not block:
                raise TimeoutError(f"Chromium did not answer within {seconds:g} s")
            self._buffer += block
        message, self._buffer = self._buffer.split(b"\0", 1)
        content: dict[str, Any] = json.loads(message)
        params = content.get("params", {})
        match content.get("method"):
            case "Network.requestWillBeSent":
                self.requests.append(params["request"]["url"])
            case "Runtime.exceptionThrown":
                self.messages.append(str(params["exceptionDetails"]))
            case "Log.entryAdded" if params["entry"]["level"] == "error":
                self.messages.append(params["entry"]["text"])
        return content

    def call(self, method: str, *, seconds: float = 60, **params: Any) -> dict[str, Any]:
        """One command of the protocol, and its result."""
        self._count += 1
        message: dict[str, Any] = {"id": self._count, "method": method, "params": params}
        if self._session:
            message["sessionId"] = self._session
        os.write(self._write, json.dumps(message).encode() + b"\0")
        while (answer := self._next(seconds)).get("id") != self._count:
            pass
        if "error" in answer:
            raise RuntimeError(f"{method}: {answer['error']}")
        result: dict[str, Any] = answer["result"]
        return result

    def run(self, script: str) -> Any:
        """The value of a JavaScript expression in the page, awaited."""
        result = self.call(
            "Runtime.evaluate", expression=script, returnByValue=True, awaitPromise=True
        )
        if "exceptionDetails" in result:
            raise RuntimeError(str(result["exceptionDetails"]))
        return result["result"].get("value")

    def open(self, page: Path, *, seconds: float = 60) -> str:
        """Open a page of ``multiad view``; how it ended: ``ready`` or ``failed``."""
        self.requests.clear()
        self.messages.clear()
        self.call("Page.navigate", url=page.resolve().as_uri())
        end = time.monotonic() + seconds
        while (state := self.run("document.body?.dataset.state ?? 'loading'")) == "loading":
            if time.monotonic() > end:
                raise TimeoutError(f"{page} was not ready within {seconds:g} s: {self.messages}")
            time.sleep(0.1)
        return str(state)

    def set(self, control: str, value: object) -> None:
        """Give a control of the page a value, as a hand would."""
        self.run(
            f"(c => {{ c.value = {json.dumps(value)};"
            "c.dispatchEvent(new Event('input', {bubbles: true})); })"
            f"(document.getElementById('{control}'))"
        )

    def screenshot(self, element: str | None = None) -> NDArray[np.uint8]:
        """What is on the screen, ``(rows, columns, 3)``; of one element, or all."""
        clip: dict[str, Any] = {}
        if element is not None:
            box = self.run(
                f"(r => ({{x: r.x, y: r.y, width: r.width, height: r.height, scale: 1}}))"
                f"(document.getElementById('{element}').getBoundingClientRect())"
            )
            clip = {"clip": box}
        # Two frames later what was set before is drawn.
        self.run("new Promise(r => requestAnimationFrame(() => requestAnimationFrame(() => r(1))))")
        data = self.call("Page.captureScreenshot", format="png", **clip)["data"]
        return np.asarray(Image.open(io.BytesIO(base64.b64decode(data))).convert("RGB"))

    def close(self) -> None:
        """End the browser."""
        self._process.terminate()
        self._process.wait(timeout=20)
        os.close(self._write)
        os.close(self._read)
