"""The page in a real browser: its own arithmetic, the landmark in a photograph, and what a reader of it needs."""

from __future__ import annotations

import math
import secrets
import threading
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import onnxruntime
import pytest
from numpy.typing import NDArray
from onnx import TensorProto, helper, numpy_helper
from PIL import Image

from litehrnet_stage2.apps.landmarks.decoding import find_decoys, locate
from litehrnet_stage2.apps.serve import page_files
from litehrnet_stage2.reference.contract.manifest import TensorSpec
from litehrnet_stage2.reference.integer_function import Quantization
from litehrnet_stage2.runtime.web import GoldenCodes, Model, PagePlan, Visits, WebServer, site_files

if TYPE_CHECKING:
    from tests.apps.conftest import Driven  # for the type alone

HEIGHT, WIDTH = 64, 128
SCALE = 1 / 16
PIXEL = float(np.float32(1 / 255))


@pytest.fixture(scope="module")
def landmark_model() -> bytes:
    """A stand-in for the landmark network: its border, and heads of a few convolutions with random weights."""
    rng = np.random.default_rng(5)
    weights = {
        "w_heat": rng.standard_normal((1, 3, 4, 4)),
        "w_offset": 0.1 * rng.standard_normal((2, 3, 4, 4)),
        "w_real": rng.standard_normal((1, 3, 8, 8)),
    }
    heads = [("heat", 4), ("offset", 4), ("real", 8)]
    nodes = [
        helper.make_node("Cast", ["image"], ["pixels"], to=TensorProto.FLOAT),
        helper.make_node("Mul", ["pixels", "step"], ["scaled"]),
        *(
            helper.make_node("Conv", ["scaled", f"w_{name}"], [name], kernel_shape=[k, k], strides=[k, k])
            for name, k in heads
        ),
    ]
    graph = helper.make_graph(
        nodes,
        "heads",
        [helper.make_tensor_value_info("image", TensorProto.UINT8, [1, 3, HEIGHT, WIDTH])],
        [
            helper.make_tensor_value_info(
                name, TensorProto.FLOAT, [1, len(weights[f"w_{name}"]), HEIGHT // k, WIDTH // k]
            )
            for name, k in heads
        ],
        [
            *(numpy_helper.from_array(w.astype(np.float32), name) for name, w in weights.items()),
            numpy_helper.from_array(np.float32(1 / 255), "step"),
        ],
    )
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 18)], ir_version=9)
    return bytes(model.SerializeToString())


def heads(model: bytes, image: NDArray[np.uint8]) -> dict[str, NDArray[np.float32]]:
    """The three heads of an image `[3,H,W]` on the grid of their codes, in Python."""
    session = onnxruntime.InferenceSession(model, providers=["CPUExecutionProvider"])
    grid = Quantization(np.float32(SCALE), 0)
    found = session.run(["heat", "offset", "real"], {"image": image[None]})
    return {name: grid.dequantize(grid.quantize(y)) for name, y in zip(("heat", "offset", "real"), found, strict=True)}


@pytest.fixture(scope="module")
def served(landmark_model: bytes) -> Iterator[str]:
    """The address of a page for the stand-in."""
    outputs = tuple(
        TensorSpec(name=name, shape=(1, channels, HEIGHT // step, WIDTH // step), scale=SCALE, zero_point=0)
        for name, channels, step in (("heat", 1, 4), ("offset", 2, 4), ("real", 1, 8))
    )
    pixels = np.random.default_rng(6).integers(-128, 128, (2, 3, HEIGHT, WIDTH), np.int8)
    codes = GoldenCodes(
        (TensorSpec(name="image", shape=(1, 3, HEIGHT, WIDTH), scale=PIXEL, zero_point=-128, kind="pixels"),),
        outputs,
        (pixels,),
        tuple(np.zeros((2, *spec.shape[1:]), np.int8) for spec in outputs),
    )
    model = Model(
        name="web",
        file_name="landmarks.onnx",
        content=landmark_model,
        sha256="0" * 64,
        exact=False,
        description="a stand-in",
    )
    models = {"web": model}
    server = WebServer(
        ("127.0.0.1", 0),
        token=secrets.token_urlsafe(16),
        files=site_files(page_files(), "landmarks", codes, models, PagePlan()),
        route=Visits(codes, models, lambda visit, report: {}).route,
    )
    threading.Thread(target=server.serve_forever, args=(0.05,), daemon=True).start()
    yield f"http://127.0.0.1:{server.port}/{server.token}/"
    server.shutdown()
    server.server_close()


@pytest.fixture
def page(served: str, driven: Driven) -> Driven:
    driven.open("about:blank")
    driven.open(served)
    driven.wait("!document.getElementById('check').disabled")
    return driven


@pytest.mark.parametrize("seed", range(3))
def test_the_page_finds_in_a_photograph_what_python_finds(
    page: Driven, landmark_model: bytes, tmp_path: Path, seed: int
) -> None:
    image = np.random.default_rng(seed).integers(0, 256, (3, HEIGHT, WIDTH), np.uint8)
    Image.fromarray(image.transpose(1, 2, 0)).save(tmp_path / "photograph.png")
    page.type("#photo", str(tmp_path / "photograph.png"))
    page.wait("document.getElementById('view').dataset.x")
    found = page.script("const {x, y} = document.getElementById('view').dataset; return [Number(x), Number(y)]")
    expected = heads(landmark_model, image)
    (centre,) = locate(expected["heat"][:, 0], expected["offset"], expected["real"][:, 0])
    assert found == pytest.approx(centre.tolist(), abs=1e-3)


def test_the_page_decodes_as_python_does(page: Driven) -> None:
    rng = np.random.default_rng(1)
    for trial in range(20):
        heat, real = (3 * rng.standard_normal((1, h, w)).astype(np.float32) for h, w in ((8, 12), (4, 6)))
        offset = rng.standard_normal((1, 2, 8, 12)).astype(np.float32)
        if trial < 4:  # the corners: neighbours that are not there
            heat[0, -(trial % 2), -(trial // 2)] = 20
        found = page.script(
            "const [heat, offset, real] = arguments;"
            "return import('./decode.js').then((m) => m.locate({ heat, offset, real }, 8, 12))",
            *(values.ravel().tolist() for values in (heat, offset, real)),
        )
        assert [found["x"], found["y"]] == pytest.approx(locate(heat, offset, real)[0].tolist(), abs=1e-4)


def test_the_page_tells_decoys_as_python_does(page: Driven) -> None:
    rng = np.random.default_rng(2)
    for _ in range(10):
        real = np.round(3 * rng.standard_normal((8, 16))).astype(np.float32)  # of equal ones the first counts
        expected = find_decoys(real)
        assert len(expected) > 1
        found = page.script(
            "const [real] = arguments;"
            "return import('./decode.js').then((m) => m.findDecoys(real, 8, 16).map(({ x, y }) => [x, y]))",
            real.ravel().tolist(),
        )
        assert np.array(found) == pytest.approx(expected, abs=1e-3)


def test_the_page_quantises_as_python_does(page: Driven) -> None:
    spec = {"name": "y", "shape": [1, 1, 1, 512], "scale": float(np.float32(0.1)), "zero_point": -3}
    grid = Quantization(np.float32(0.1), -3)
    values = (0.1 * np.arange(-256, 256) / 2).astype(np.float32)  # half of them ties, some beyond the ends
    border = "const [values, spec, exact] = arguments; return import('./border.js').then((m) => "
    found = page.script(
        border + "[...m.toCodes(Float32Array.from(values), spec, 'float32', exact)])", values.tolist(), spec, False
    )
    assert np.abs(np.array(found) - grid.quantize(values).astype(int)).max() <= 1
    codes = np.arange(-128, 128, dtype=np.int8)
    floats = page.script(border + "[...m.dequantize(Int8Array.from(values), spec)])", codes.tolist(), spec, False)
    assert np.array_equal(np.array(floats, np.float32), grid.dequantize(codes))
    spec["shape"] = [1, 1, 1, 256]
    back = page.script(
        border + "[...m.toCodes(Float32Array.from(values), spec, 'float32', exact)])", floats, spec, True
    )
    assert back == codes.tolist()
    for wrong in ([f + 0.01 for f in floats], [math.nan] * 256):
        said = page.script(
            border + "m.toCodes(Float32Array.from(values, (v) => v ?? NaN), spec, 'float32', exact))"
            ".then(() => 'taken', (error) => error.message)",
            [None if math.isnan(value) else value for value in wrong],
            spec,
            True,
        )
        assert "steps off its grid" in said


def test_samples_of_the_bundle_can_be_shown(page: Driven) -> None:
    page.click("#sample")
    page.wait("document.getElementById('view').dataset.x")
    assert "int8, in this browser" in page.text("#found")
    assert page.script("return document.getElementById('view').getAttribute('aria-label')").startswith("The picture")


def test_the_live_camera_goes_through_the_network_until_it_is_stopped(page: Driven) -> None:
    page.click("#camera")
    page.wait("document.getElementById('found').textContent.includes('frames per second')")
    assert page.text("#camera") == "Stop the camera"
    page.click("#camera")
    assert page.text("#camera") == "Camera"


def test_the_page_fetches_from_its_own_server_alone_and_has_nothing_to_complain_of(page: Driven, served: str) -> None:
    page.click("#sample")
    page.wait("document.getElementById('view').dataset.x")
    fetched = page.script("return performance.getEntriesByType('resource').map((entry) => entry.name)")
    assert fetched
    assert all(name.startswith(served) or name.startswith("blob:") for name in fetched)
    assert page.logged() == []
    blocked = page.script("return fetch('http://192.0.2.1/').then(() => 'fetched', () => 'blocked')")
    assert blocked == "blocked"
    assert any("Content Security Policy" in entry for entry in page.logged())


CONTRAST = """
const parse = (text) => text.match(/[\\d.]+/g).map(Number);
const linear = (v) => v <= 0.04045 ? v / 12.92 : ((v + 0.055) / 1.055) ** 2.4;
const light = ([r, g, b]) => [r, g, b].map((v) => linear(v / 255))
  .reduce((sum, v, i) => sum + v * [0.2126, 0.7152, 0.0722][i], 0);
const ground = (e) => { for (; e; e = e.parentElement) { const c = parse(getComputedStyle(e).backgroundColor);
  if (c.length === 3 || c[3] > 0) return c; } return [255, 255, 255]; };
return [...document.querySelectorAll('h1, h2, p, label, button, .button, summary, figcaption, th')].filter((e) =>
  e.checkVisibility() && e.textContent.trim()).map((e) => {
    const [a, b] = [light(parse(getComputedStyle(e).color)), light(ground(e))];
    return [e.textContent.trim().slice(0, 30), (Math.max(a, b) + 0.05) / (Math.min(a, b) + 0.05)];
  });
"""


@pytest.mark.parametrize("scheme", ["light", "dark"])
def test_everything_can_be_read_on_a_phone_in_light_and_in_the_dark(page: Driven, scheme: str) -> None:
    page.emulate("Emulation.setEmulatedMedia", features=[{"name": "prefers-color-scheme", "value": scheme}])
    paper = page.script("return getComputedStyle(document.body).backgroundColor")
    assert (sum(map(int, paper.strip("rgb()").split(","))) > 384) == (scheme == "light")
    contrasts = page.script(CONTRAST)
    assert len(contrasts) > 10
    assert [entry for entry in contrasts if entry[1] < 4.5] == []
    assert page.script("return [innerWidth, document.documentElement.scrollWidth]") == [390, 390]
    page.emulate("Emulation.setEmulatedMedia", features=[])


def test_everything_can_be_used_without_a_pointer_and_without_sight(page: Driven) -> None:
    unnamed = page.script(
        "return [...document.querySelectorAll('button, input, canvas, [role=region]')]"
        ".filter((e) => !(e.textContent.trim() || e.labels?.length || e.ariaLabel"
        " || e.getAttribute('aria-labelledby'))).map((e) => e.id)"
    )
    assert unnamed == []
    small = page.script(
        "return [...document.querySelectorAll('button, .button, .switch, input[type=text]')].filter((e) =>"
        " e.checkVisibility() && e.getBoundingClientRect().height < 44).map((e) => e.id || e.textContent)"
    )
    assert small == []
    assert page.script("return document.getElementById('status').getAttribute('role')") == "status"
    reached: list[Any] = []
    for _ in range(12):
        page.ask(
            "POST",
            "actions",
            actions=[
                {
                    "type": "key",
                    "id": "keys",
                    "actions": [{"type": "keyDown", "value": "\ue004"}, {"type": "keyUp", "value": "\ue004"}],
                }
            ],
        )
        reached.append(page.script("const e = document.activeElement; return e.id || e.className || e.tagName"))
    assert {"sample", "photo", "overlay", "device", "both", "check"} <= set(reached)


def test_nothing_moves_for_those_who_asked_for_that(page: Driven) -> None:
    page.emulate("Emulation.setEmulatedMedia", features=[{"name": "prefers-reduced-motion", "value": "reduce"}])
    moving = page.script(
        "return [...document.querySelectorAll('*')].filter((e) => { const s = getComputedStyle(e);"
        " return s.animationName !== 'none' || !/^(all )?(0s|none)/.test(s.transition) }).map((e) => e.tagName)"
    )
    assert moving == []
    page.emulate("Emulation.setEmulatedMedia", features=[])
