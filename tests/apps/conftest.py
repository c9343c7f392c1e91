"""Browsers for the tests of pages, and `stage2 serve` beside them."""

from __future__ import annotations

import base64
import contextlib
import json
import os
import re
import shutil
import subprocess
import sys
import threading
import time
import urllib.request
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any, NoReturn

import pytest

from litehrnet_stage2.apps.address import reachable

CHROMIUM = (
    *("--headless", "--no-sandbox", "--disable-gpu", "--disable-quic", "--no-first-run"),
    *("--disable-background-networking", "--disable-component-update", "--disable-sync"),
)
NO_OTHER_HOST = f"--host-resolver-rules=MAP * ~NOTFOUND, {', '.join(f'EXCLUDE {own}' for own in reachable('0.0.0.0'))}"
NO_REAL_CAMERA = ("--use-fake-device-for-media-stream", "--use-fake-ui-for-media-stream")


def installed(*programs: str) -> str:
    """The first of these programs that is there; without one the test is skipped, or fails where all have to run."""
    for program in programs:
        if found := shutil.which(program):
            return found
    cannot_run(f"{programs[0]} is not installed: apt-get install {programs[0]}")


def cannot_run(reason: str) -> NoReturn:
    if os.environ.get("LITEHRNET_STAGE2_REQUIRE_DEVICES"):
        pytest.fail(f"LITEHRNET_STAGE2_REQUIRE_DEVICES is set, but {reason}")
    pytest.skip(reason)


class Serving:
    """A running `stage2 serve`."""

    def __init__(self, arguments: Sequence[str | Path]) -> None:
        self.process = subprocess.Popen(
            [Path(sys.executable).with_name("stage2"), "serve", *map(str, arguments)],
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
            env={**os.environ, "COLUMNS": "500", "NO_COLOR": "1"},
        )
        assert self.process.stderr is not None
        self.said: list[str] = []
        self.url = ""
        for line in self.process.stderr:
            self.said.append(line)
            if found := re.search(r"https?://\S+/", line):
                self.url = found[0]
                break
        self._reader = threading.Thread(target=lambda: self.said.extend(self.process.stderr or ()), daemon=True)
        self._reader.start()

    def until(self, text: str, timeout_s: float = 60) -> None:
        """Wait until it said something on standard error."""
        end = time.monotonic() + timeout_s
        while text not in "".join(self.said) and time.monotonic() < end:
            time.sleep(0.05)

    def end(self, timeout_s: float = 240) -> tuple[int, str]:
        """Wait for its end: exit code and what it printed."""
        self.process.wait(timeout=timeout_s)
        assert self.process.stdout is not None
        self._reader.join(timeout=10)
        return self.process.returncode, self.process.stdout.read()

    def close(self) -> None:
        """End it, whatever it does, and close what it was read by."""
        self.process.kill()
        self._reader.join(timeout=10)
        with self.process:  # closes both streams
            pass


@pytest.fixture(scope="session")
def pem(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A key and a self-signed certificate, as the documentation makes them."""
    folder = tmp_path_factory.mktemp("tls")
    subject = ["-subj", "/CN=stage2", "-keyout", "stage2.pem", "-out", "cert.pem"]
    command = [installed("openssl"), *("req", "-x509", "-newkey", "rsa:2048", "-nodes", "-days", "30"), *subject]
    subprocess.run(command, cwd=folder, check=True, capture_output=True)
    with (folder / "stage2.pem").open("a") as key:
        key.write((folder / "cert.pem").read_text())
    return folder / "stage2.pem"


@pytest.fixture
def serving() -> Iterator[Callable[..., Serving]]:
    """Start `stage2 serve` with some arguments."""
    started: list[Serving] = []

    def start(*arguments: str | Path) -> Serving:
        started.append(Serving(arguments))
        assert started[-1].url, "".join(started[-1].said)
        return started[-1]

    yield start
    for one in started:
        one.close()


@pytest.fixture
def visit(tmp_path: Path) -> Iterator[Callable[[str, str], None]]:
    """Open an address in `chromium` or `firefox-esr`, headless, which may reach this machine alone."""
    with contextlib.ExitStack() as open_browsers:

        def open_(browser: str, url: str) -> None:
            profile = tmp_path / f"{browser}-profile"
            profile.mkdir(exist_ok=True)
            if browser == "chromium":
                program = installed("chromium", "chromium-browser", "google-chrome")
                options = [*CHROMIUM, NO_OTHER_HOST, "--remote-debugging-port=0", f"--user-data-dir={profile}", url]
            else:
                program = installed("firefox-esr", "firefox")
                (profile / "user.js").write_text(
                    'user_pref("network.proxy.type", 1);\n'  # everything else goes to a proxy that is not there
                    'user_pref("network.proxy.http", "127.0.0.1"); user_pref("network.proxy.http_port", 9);\n'
                    'user_pref("network.proxy.ssl", "127.0.0.1"); user_pref("network.proxy.ssl_port", 9);\n'
                    'user_pref("network.proxy.no_proxies_on", "127.0.0.1");\n'
                )
                options = ["--headless", "--no-remote", "--profile", str(profile), url]
            process = subprocess.Popen([program, *options], stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
            open_browsers.callback(process.wait)
            open_browsers.callback(process.kill)

        yield open_


class Driven:
    """Chromium, driven through chromedriver in the protocol of W3C WebDriver."""

    def __init__(self, session: str) -> None:
        self._session = session

    def ask(self, method: str, path: str, **values: Any) -> Any:
        body = json.dumps(values).encode() if method == "POST" else None
        request = urllib.request.Request(f"{self._session}/{path}", body, method=method)
        with urllib.request.urlopen(request, timeout=120) as response:
            return json.load(response)["value"]

    def close(self) -> None:
        """End the session, and the browser with it."""
        with urllib.request.urlopen(urllib.request.Request(self._session, method="DELETE"), timeout=30):
            pass

    def open(self, url: str) -> None:
        """What the page before had to say is of no concern to the next."""
        self.logged()
        self.ask("POST", "url", url=url)

    def script(self, code: str, *arguments: Any) -> Any:
        """What a function body returns; a promise is waited for."""
        return self.ask("POST", "execute/sync", script=code, args=list(arguments))

    def element(self, selector: str) -> str:
        found: dict[str, str] = self.ask("POST", "element", using="css selector", value=selector)
        return next(iter(found.values()))

    def click(self, selector: str) -> None:
        self.ask("POST", f"element/{self.element(selector)}/click")

    def type(self, selector: str, text: str) -> None:
        self.ask("POST", f"element/{self.element(selector)}/value", text=text)

    def text(self, selector: str) -> str:
        return str(self.ask("GET", f"element/{self.element(selector)}/text"))

    def wait(self, condition: str, seconds: float = 120) -> None:
        """Until a JavaScript expression is true."""
        done = self.script(
            "const end = performance.now() + arguments[1], test = new Function(`return ${arguments[0]}`);"
            "return new Promise((r) => { const look = () => test() ? r(true) :"
            " performance.now() > end ? r(document.body.innerText) : setTimeout(look, 50); look(); })",
            condition,
            1000 * seconds,
        )
        assert done is True, done

    def logged(self) -> list[str]:
        """What the page had to say on its console."""
        return [entry["message"] for entry in self.ask("POST", "se/log", type="browser")]

    def emulate(self, command: str, **parameters: Any) -> None:
        """A command of Chromium's own protocol."""
        self.ask("POST", "goog/cdp/execute", cmd=command, params=parameters)

    def screenshot(self, path: Path) -> None:
        path.write_bytes(base64.b64decode(self.ask("GET", "screenshot")))


@pytest.fixture(scope="session")
def driven(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Driven]:
    """Chromium at the size of a phone, which may reach this machine alone."""
    program = installed("chromedriver", "chromium-driver")
    browser = installed("chromium", "chromium-browser", "google-chrome")
    driver = subprocess.Popen([program, "--port=0"], stdout=subprocess.PIPE, text=True)
    assert driver.stdout is not None
    try:
        port = next(found[1] for line in driver.stdout if (found := re.search(r"successfully on port (\d+)", line)))
        options = {
            "binary": browser,
            "args": [
                *CHROMIUM,
                *NO_REAL_CAMERA,
                NO_OTHER_HOST,
                f"--user-data-dir={tmp_path_factory.mktemp('chromium')}",
            ],
            "mobileEmulation": {"deviceMetrics": {"width": 390, "height": 844, "pixelRatio": 2, "touch": True}},
        }
        capabilities = {
            "goog:chromeOptions": options,
            "goog:loggingPrefs": {"browser": "ALL"},
            "timeouts": {"script": 120_000},
            "acceptInsecureCerts": True,
        }
        begun = Driven(f"http://127.0.0.1:{port}").ask("POST", "session", capabilities={"alwaysMatch": capabilities})
        session = Driven(f"http://127.0.0.1:{port}/session/{begun['sessionId']}")
        yield session
        session.close()
    finally:
        driver.kill()
        with driver:
            pass
