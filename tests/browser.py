"""A real browser, by the W3C's WebDriver protocol: Chromium without a window, and its driver."""

import base64
import json
import shutil
import subprocess
import tempfile
import urllib.error
import urllib.request
from pathlib import Path
from typing import Any

import pytest

ARGUMENTS = ["--headless=new", "--no-sandbox", "--disable-gpu", "--window-size=1280,900"]
KEYS = {"Left": "\ue012", "Up": "\ue013", "Right": "\ue014", "Down": "\ue015",
        "Tab": "\ue004", "Enter": "\ue007", "Space": " "}  # fmt: skip


class Browser:
    """Chromium with one page; a context manager. Skips the test where there is none."""

    def __init__(self, *arguments: str) -> None:
        self._arguments = [*ARGUMENTS, *arguments]

    def __enter__(self) -> "Browser":
        missing = [name for name in ("chromium", "chromedriver") if shutil.which(name) is None]
        if missing:
            pytest.skip(f"opening the page in a browser needs {' and '.join(missing)}")
        self._profile = tempfile.TemporaryDirectory(ignore_cleanup_errors=True)
        self._driver = subprocess.Popen(
            ["chromedriver", "--port=0"], stdout=subprocess.PIPE, stderr=subprocess.DEVNULL,
            text=True, env={"PATH": "/usr/local/bin:/usr/bin:/bin", "HOME": self._profile.name},
        )  # fmt: skip
        assert self._driver.stdout is not None
        line = next(line for line in self._driver.stdout if "successfully on port" in line)
        self._session = f"http://127.0.0.1:{line.split()[-1].rstrip('.')}/session"
        options = {"binary": shutil.which("chromium"), "args": self._arguments}
        wanted = {"goog:chromeOptions": options, "goog:loggingPrefs": {"browser": "ALL"}}
        try:
            made = self.ask("", {"capabilities": {"alwaysMatch": wanted}})
        except BaseException:
            self._driver.kill()
            raise
        self._session += "/" + made["sessionId"]
        return self

    def __exit__(self, *error: object) -> None:
        try:
            self.ask("", method="DELETE")
        finally:
            self._driver.terminate()
            self._driver.wait()
            self._profile.cleanup()

    def ask(self, what: str, body: dict[str, Any] | None = None, method: str = "POST") -> Any:
        """One command of the protocol, and the value of its answer."""
        data = None if method != "POST" else json.dumps(body or {}).encode()
        request = urllib.request.Request(self._session + what, data, method=method)
        try:
            with urllib.request.urlopen(request, timeout=120) as answer:
                return json.load(answer)["value"]
        except urllib.error.HTTPError as error:
            raise AssertionError(json.load(error)["value"]["message"]) from None

    def open(self, path: Path) -> None:
        self.ask("/url", {"url": path.resolve().as_uri()})

    def run(self, script: str, *arguments: Any) -> Any:
        """The value that the body of a JavaScript function returns in the page."""
        return self.ask("/execute/sync", {"script": script, "args": list(arguments)})

    def keys(self, *steps: tuple[str, str]) -> None:
        """("keyDown", "Left"), ("keyUp", "Left") ..."""
        actions = [{"type": kind, "value": KEYS.get(key, key)} for kind, key in steps]
        self.ask("/actions", {"actions": [{"type": "key", "id": "keys", "actions": actions}]})

    def finger(self, *actions: dict[str, Any]) -> None:
        """What a finger does on the screen."""
        pointer = {"type": "pointer", "id": "finger", "parameters": {"pointerType": "touch"}}
        self.ask("/actions", {"actions": [{**pointer, "actions": list(actions)}]})

    def emulate(self, command: str, **parameters: Any) -> None:
        """A phone's window, dark colours, little motion."""
        self.devtools(f"Emulation.{command}", **parameters)

    def devtools(self, command: str, **parameters: Any) -> Any:
        """A command of Chromium's own."""
        return self.ask("/goog/cdp/execute", {"cmd": command, "params": parameters})

    def complaints(self) -> list[str]:
        """What the page's console holds, errors and warnings."""
        return [entry["message"] for entry in self.ask("/se/log", {"type": "browser"})]

    def screenshot(self, path: Path) -> None:
        path.write_bytes(base64.b64decode(self.ask("/screenshot", method="GET")))
