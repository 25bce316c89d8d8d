"""Hand-made tables of runs, and a headless Chromium, driven through its WebDriver."""

import json
import shutil
import socket
import subprocess
import time
import urllib.request
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pandas as pd
import pytest

from tests.report.tables import random, table_of, toy_study

OPTIONS = ["--headless=new", "--no-sandbox", "--disable-gpu", "--hide-scrollbars", "--disable-dev-shm-usage"]


def until(condition: Callable[[], bool]) -> None:
    """Wait for something that must come."""
    deadline = time.monotonic() + 120
    while not condition():
        assert time.monotonic() < deadline, "waited in vain"
        time.sleep(0.05)


def listens(port: int) -> bool:
    with socket.socket() as probe:
        return probe.connect_ex(("127.0.0.1", port)) == 0


class Browser:
    """One page of Chromium.

    Args:
        address: Of the WebDriver.
    """

    def __init__(self, address: str) -> None:
        self.address = address
        wanted = {
            "browserName": "chrome",
            "goog:chromeOptions": {"args": OPTIONS},
            "goog:loggingPrefs": {"browser": "ALL", "performance": "ALL"},
        }
        answer = self._ask("POST", "/session", {"capabilities": {"alwaysMatch": wanted}})
        self.address += f"/session/{answer['sessionId']}"

    def open(self, path: Path, width: int = 1200, dark: bool = False) -> None:
        """Load a file, as wide as that many pixels."""
        size = {"width": width, "height": 1000, "deviceScaleFactor": 1, "mobile": False}
        scheme = {"features": [{"name": "prefers-color-scheme", "value": "dark" if dark else "light"}]}
        self.devtools("Emulation.setDeviceMetricsOverride", size)
        self.devtools("Emulation.setEmulatedMedia", scheme)
        self._ask("POST", "/url", {"url": "about:blank"})  # the same page twice would count as loaded at once
        self._ask("POST", "/url", {"url": path.as_uri()})
        until(lambda: self.run("return document.querySelector('.plot svg') !== null"))

    def run(self, script: str) -> Any:
        """Run the body of a function in the page."""
        return self._ask("POST", "/execute/sync", {"script": script, "args": []})

    def point_at(self, x: float, y: float) -> None:
        """Move the mouse there, and wait until the page has had the time to draw."""
        for at in x - 1, x:
            self.devtools("Input.dispatchMouseEvent", {"type": "mouseMoved", "x": at, "y": y})
        self._ask("POST", "/execute/async", {"script": "setTimeout(arguments[0], 500)", "args": []})

    def errors(self) -> list[str]:
        """What the console has reported since the last call."""
        return [entry["message"] for entry in self._ask("POST", "/se/log", {"type": "browser"})]

    def requests(self) -> list[str]:
        """Addresses that pages have asked for since the last call."""
        entries = self._ask("POST", "/se/log", {"type": "performance"})
        messages = [json.loads(entry["message"])["message"] for entry in entries]
        sent = [m["params"]["request"]["url"] for m in messages if m["method"] == "Network.requestWillBeSent"]
        return [url for url in sent if not url.startswith(("data:", "blob:", "about:"))]

    def devtools(self, command: str, parameters: dict[str, Any]) -> Any:
        """Give a command of the DevTools protocol."""
        return self._ask("POST", "/goog/cdp/execute", {"cmd": command, "params": parameters})

    def close(self) -> None:
        """End the session."""
        self._ask("DELETE", "", None)

    def _ask(self, method: str, path: str, body: Any) -> Any:
        data = None if body is None else json.dumps(body).encode()
        request = urllib.request.Request(self.address + path, data, method=method)
        request.add_header("Content-Type", "application/json")
        with urllib.request.urlopen(request, timeout=120) as answer:
            return json.load(answer)["value"]


@pytest.fixture(scope="session")
def toy() -> pd.DataFrame:
    return toy_study()


@pytest.fixture(scope="session")
def make_table() -> Callable[..., pd.DataFrame]:
    return table_of


@pytest.fixture(scope="session")
def make_random() -> Callable[..., dict[str, Any]]:
    return random


@pytest.fixture(scope="session")
def browser() -> Iterator[Browser]:
    driver = shutil.which("chromedriver")
    if driver is None or not (shutil.which("chromium") or shutil.which("google-chrome")):
        pytest.fail("the page is tested in Chromium: install the packages chromium and chromium-driver")
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port = probe.getsockname()[1]
    process = subprocess.Popen([driver, f"--port={port}", "--silent"], stdout=subprocess.DEVNULL)
    try:
        until(lambda: listens(port))
        browser = Browser(f"http://127.0.0.1:{port}")
        yield browser
        browser.close()
    finally:
        process.terminate()
        process.wait()
