"""`stage2 serve` with real browsers: every golden code, times, the result, and what the page shows."""

from __future__ import annotations

import signal
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING

import pytest
from typer.testing import CliRunner

from litehrnet_stage2.apps.cli import app
from litehrnet_stage2.runtime import Bundle
from litehrnet_stage2.runtime.latency import read_result
from litehrnet_stage2.runtime.web import GoldenCodes

if TYPE_CHECKING:
    from tests.apps.conftest import Driven, Serving  # for the types alone


@pytest.mark.parametrize("browser", ["chromium", "firefox-esr"])
def test_a_browser_gives_every_golden_code_and_takes_times(
    small_bundle: Path,
    serving: Callable[..., Serving],
    visit: Callable[[str, str], None],
    tmp_path: Path,
    browser: str,
) -> None:
    served = serving(small_bundle, "--once", "--json", tmp_path / "web.json")
    visit(browser, f"{served.url}#auto=Kitchen%20phone")
    code, out = served.end()
    assert code == 0, (out, served.said)
    assert "Parity with the golden codes" in out
    assert "web 1.30.0" in out
    result = read_result(tmp_path / "web.json")
    (run,) = result.runs
    (web,) = run.candidates
    assert run.machine.device == "web: Kitchen phone"
    assert ("Firefox" if browser == "firefox-esr" else "Chrome") in run.machine.arch
    assert web.key == "web, 1 thread"
    assert web.parity_before is not None
    assert web.parity_after is not None
    assert all(output.mismatches == 0 and output.compared for output in web.parity_after.values())
    assert web.latency is not None
    assert web.latency.queries == 32
    html = tmp_path / "out.html"
    done = CliRunner().invoke(app, ["report", str(tmp_path / "web.json"), "--html", str(html)])
    assert done.exit_code == 0, done.output
    assert "web: Kitchen phone" in html.read_text()


def test_the_shipped_network_has_the_same_bits_in_a_browser(
    bundle_folder: Path, serving: Callable[..., Serving], driven: Driven
) -> None:
    served = serving(bundle_folder)
    driven.open(served.url)
    driven.wait("!document.getElementById('check').disabled")
    assert driven.script("return performance.getEntriesByType('navigation')[0].domComplete") < 5000
    driven.click("#check")
    driven.wait("document.getElementById('status').textContent.startsWith('Done')")
    count = sum(codes.size for codes in GoldenCodes.of(Bundle.open(bundle_folder)).wanted)
    assert driven.text("#verdict") == f"All {count:,} codes are equal."
    served.process.send_signal(signal.SIGINT)
    code, out = served.end(timeout_s=10)
    assert code == 0
    assert "web 1.30.0" in out
