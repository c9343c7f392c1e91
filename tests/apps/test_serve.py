"""`stage2 serve` with real browsers: every golden code, times, the result, and what the page shows."""

from __future__ import annotations

import http.client
import re
import signal
import time
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
import pytest
import segno
from numpy.typing import NDArray
from PIL import Image
from typer.testing import CliRunner

from litehrnet_stage2.apps.address import qr, reachable
from litehrnet_stage2.apps.cli import app
from litehrnet_stage2.apps.landmarks.whole import convert_landmarks, find, scenes
from litehrnet_stage2.converters.write_bundle import FloatOutputs, write_bundle
from litehrnet_stage2.reference.freeze import Proof
from litehrnet_stage2.reference.integer_function import IntegerFunction
from litehrnet_stage2.runtime import Bundle, open_session
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


@pytest.mark.parametrize("layout", ["NCHW", "NHWC"])
def test_a_browser_feeds_codes_in_the_layout_that_the_manifest_says(
    small_frozen: tuple[IntegerFunction, Proof],
    small_features: NDArray[np.float32],
    small_network: FloatOutputs,
    serving: Callable[..., Serving],
    driven: Driven,
    tmp_path: Path,
    layout: str,
) -> None:
    folder = Path(__file__).parents[1] / "bundles" / "schema-2-codes-channels-first"
    if layout == "NHWC":
        folder = tmp_path / "bundle"
        write_bundle(*small_frozen, small_features[:2], folder, float_network=small_network, targets=["onnx-codes"])
    bundle = Bundle.open(folder)
    assert bundle.manifest.artifacts["onnx-codes"].border.layout == layout
    served = serving(folder)
    driven.open(served.url)
    driven.wait("!document.getElementById('check').disabled")
    driven.click("#check")
    driven.wait("document.getElementById('status').textContent.startsWith('Done')")
    count = sum(codes.size for codes in GoldenCodes.of(bundle).wanted)
    assert driven.text("#verdict") == f"All {count:,} codes are equal."


@pytest.mark.parametrize("secure", [False, True])
def test_a_page_over_the_network_is_exact_with_and_without_tls(
    small_bundle: Path, serving: Callable[..., Serving], driven: Driven, pem: Path, secure: bool
) -> None:
    own = reachable("0.0.0.0")[0]
    served = serving(small_bundle, "--bind", own, *(["--tls", pem] if secure else []))
    assert served.url.startswith(f"{'https' if secure else 'http'}://{own}:")
    driven.open(served.url)
    driven.wait("!document.getElementById('check').disabled")
    # Without a secure context there is neither shared memory between threads nor a digest: none is needed.
    assert driven.script("return [isSecureContext, crossOriginIsolated]") == [secure or own == "127.0.0.1"] * 2
    driven.click("#check")
    driven.wait("document.getElementById('status').textContent.startsWith('Done')")
    assert driven.text("#verdict").endswith("codes are equal.")
    assert [entry for entry in driven.logged() if "favicon" not in entry] == []


def test_what_is_exposed_to_the_network_is_said_with_a_code_to_scan(
    small_bundle: Path, serving: Callable[..., Serving]
) -> None:
    served = serving(small_bundle, "--bind", "0.0.0.0")
    served.until("Ctrl-C ends it.")
    said = "".join(served.said)
    assert "Open to this network: whoever has the address can read the model and the golden inputs" in said
    assert "Plain http: others on the network can listen." in said
    assert "█" in said
    assert re.search(r"http://127\.0\.0\.1:\d+/", said)


def test_on_loopback_nothing_is_exposed_and_nothing_is_said_of_it(
    small_bundle: Path, serving: Callable[..., Serving]
) -> None:
    served = serving(small_bundle)
    assert re.fullmatch(r"http://127\.0\.0\.1:\d+/[\w-]{22}/", served.url)
    served.process.send_signal(signal.SIGINT)
    begun = time.monotonic()
    code, _ = served.end(timeout_s=20)
    assert time.monotonic() - begun < 10
    assert code == 130  # nobody came
    assert "Open to this network" not in "".join(served.said)


def test_two_servers_have_different_tokens(small_bundle: Path, serving: Callable[..., Serving]) -> None:
    tokens = {serving(small_bundle).url.split("/")[3] for _ in range(2)}
    assert len(tokens) == 2


def test_ctrl_c_ends_at_once_though_connections_are_open(small_bundle: Path, serving: Callable[..., Serving]) -> None:
    served = serving(small_bundle)
    host = served.url.split("/")[2]
    waiting = [http.client.HTTPConnection(host, timeout=30) for _ in range(5)]
    for connection in waiting:
        connection.connect()
    begun = time.monotonic()
    served.process.send_signal(signal.SIGINT)
    served.end(timeout_s=20)
    assert time.monotonic() - begun < 5


@pytest.mark.parametrize(
    ("options", "said"),
    [
        (["--bind", "nowhere"], "--bind 'nowhere' is no address"),
        (["--bind", "203.0.113.7"], "Cannot assign requested address"),
        (["--against", "stock"], "--against 'stock' cannot be run in a browser here"),
        (["--tls", "missing.pem"], "missing.pem"),
        (["--tls", "/dev/zero"], "/dev/zero is no regular file"),
        (["--tls", __file__], "holds no key and certificate that belong together"),
        (["--collect", __file__], "File exists"),
    ],
)
def test_a_wrong_option_is_one_sentence(small_bundle: Path, stage2, options: list[str], said: str) -> None:
    done = stage2("serve", small_bundle, *options)
    assert done.returncode == 2, done.stderr
    assert said in done.stderr
    assert "Traceback" not in done.stderr


def test_a_bundle_without_onnx_says_how_to_get_it(apple_bundle: Path, stage2) -> None:
    done = stage2("serve", apple_bundle)
    assert done.returncode == 2
    assert "--targets onnx" in done.stderr


def test_several_browsers_each_leave_a_file_that_report_lays_side_by_side(
    small_bundle: Path, serving: Callable[..., Serving], visit: Callable[[str, str], None], tmp_path: Path
) -> None:
    folder = tmp_path / "room"
    served = serving(small_bundle, "--collect", folder)
    visit("chromium", f"{served.url}#auto=Phone%20one")
    visit("firefox-esr", f"{served.url}#auto=Phone%20two")
    deadline = time.monotonic() + 240
    while len(list(folder.glob("*.json"))) < 2 and time.monotonic() < deadline:
        time.sleep(0.5)
    served.process.send_signal(signal.SIGINT)
    code, out = served.end(timeout_s=20)
    assert code == 0, out
    assert "2 results" in out
    files = sorted(folder.glob("*.json"))
    assert {re.sub(r"^\d{3}-|-[\w-]{6}\.json$", "", path.name) for path in files} == {"phone-one", "phone-two"}
    browsers = {read_result(path).runs[0].machine.device: read_result(path).runs[0].machine.arch for path in files}
    assert "Chrome" in browsers["web: Phone one"]
    assert "Firefox" in browsers["web: Phone two"]
    done = CliRunner().invoke(app, ["report", *map(str, files), "--html", str(tmp_path / "room.html")])
    assert done.exit_code == 0, done.output
    html = (tmp_path / "room.html").read_text()
    assert "web: Phone one" in html
    assert "web: Phone two" in html


def test_a_result_that_cannot_be_written_is_no_secret(
    small_bundle: Path, serving: Callable[..., Serving], driven: Driven, tmp_path: Path
) -> None:
    folder = tmp_path / "room"
    served = serving(small_bundle, "--collect", folder)
    folder.rmdir()
    driven.open(served.url)
    driven.wait("!document.getElementById('check').disabled")
    driven.click("#check")
    code, _ = served.end()
    assert code == 2
    assert "No such file or directory" in "".join(served.said)


def test_a_code_to_scan_holds_the_address() -> None:
    address = "http://192.168.178.21:40123/AAAAAAAAAAAAAAAAAAAAAA/"
    rows = [[bool(module) for module in row] for row in segno.make(address, error="l").matrix_iter(border=2)]
    drawn = qr(address).splitlines()
    assert len({len(line) for line in drawn}) == 1
    unpacked = []
    for line in drawn:
        unpacked.append([character in "▀█" for character in line])
        unpacked.append([character in "▄█" for character in line])
    assert unpacked[: len(rows)] == rows


@pytest.fixture(scope="module")
def landmark_bundle(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The whole landmark network, as the page takes it."""
    folder = tmp_path_factory.mktemp("whole") / "bundle"
    convert_landmarks(folder, targets=("onnx",))
    return folder


@pytest.mark.parametrize("seed", [3, 11])
def test_the_landmark_network_finds_in_the_browser_what_it_finds_in_python(
    landmark_bundle: Path, serving: Callable[..., Serving], driven: Driven, tmp_path: Path, seed: int
) -> None:
    (scene,) = scenes(1, split="test", seed=seed)
    Image.fromarray(scene.image.transpose(1, 2, 0)).save(tmp_path / "photograph.png")
    driven.open(serving(landmark_bundle).url)
    driven.wait("!document.getElementById('check').disabled")
    driven.type("#photo", str(tmp_path / "photograph.png"))
    driven.wait("document.getElementById('view').dataset.x")
    found = driven.script("const {x, y} = document.getElementById('view').dataset; return [Number(x), Number(y)]")
    with open_session(landmark_bundle, "onnxruntime") as session:
        (due,) = find(session, scene.image[None])
    assert found == pytest.approx(due.tolist(), abs=1e-3)
    assert np.hypot(*(np.array(found) - scene.shapes[0, :2])) < 2
