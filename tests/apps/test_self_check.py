"""The self-checks of docs/self-check that can run here, run: they say so if one code of a bundle is another."""

from __future__ import annotations

import functools
import gzip
import hashlib
import http.server
import importlib.util
import json
import os
import re
import shutil
import subprocess
import threading
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import TYPE_CHECKING, TypeAlias

import numpy as np
import pytest
import torch
from torch import Tensor, nn

from litehrnet_stage2.apps.convert_network import convert_network
from litehrnet_stage2.reference.contract.manifest import Manifest, golden_file
from litehrnet_stage2.runtime import Bundle
from litehrnet_stage2.runtime.web import vendor
from tests.apps.conftest import cannot_run, installed
from tests.conftest import Once

if TYPE_CHECKING:
    from tests.apps.conftest import Driven  # for the type alone

ROOT = Path(__file__).parents[2]
SNIPPETS = ROOT / "docs" / "self-check"
BUNDLES = ROOT / "tests" / "bundles"

SelfCheck: TypeAlias = Callable[[Path], bool]
"""Run a self-check on a bundle; an error of its own is a RuntimeError."""


class TwoInputs(nn.Module):
    """Pixels and floats in; a map and one value an image out."""

    def __init__(self) -> None:
        super().__init__()
        self.stem, self.hint, self.heat = nn.Conv2d(3, 8, 3, 2, 1), nn.Conv2d(4, 8, 1), nn.Conv2d(8, 2, 1)
        self.pool = nn.AdaptiveAvgPool2d(1)

    def forward(self, picture: Tensor, prior: Tensor) -> dict[str, Tensor]:
        x = torch.relu(self.stem(picture) + self.hint(prior))
        return {"heat": self.heat(x), "mean": self.pool(x)}


@pytest.fixture(scope="session")
def two_inputs(once: Once) -> Path:
    random = np.random.default_rng(3)
    pixels = random.integers(0, 256, (2, 3, 16, 24)).astype(np.uint8)
    floats = random.normal(size=(2, 4, 8, 12)).astype(np.float32)

    def make(folder: Path) -> None:
        torch.manual_seed(0)
        convert_network(
            TwoInputs().eval(), folder / "bundle", pixels, floats, targets=["executorch", "onnx", "onnx-codes"]
        )

    return once("self-check-two-inputs", make) / "bundle"


@pytest.fixture(scope="session")
def program(once: Once) -> Path:
    """`self_check.cpp`, built with the command that it names."""
    installed("g++")
    for header, package in (("nlohmann/json.hpp", "nlohmann-json3-dev"), ("openssl/evp.h", "libssl-dev")):
        if not Path("/usr/include", header).is_file():
            cannot_run(f"{header} is not installed: apt-get install {package}")
    source = SNIPPETS / "self_check.cpp"
    (lines,) = re.findall(r"^//\s+(g\+\+ .*(?:\n//\s+-.*)+)", source.read_text(encoding="utf-8"), re.MULTILINE)
    command = re.sub(r"\n//\s+", " ", lines)
    executorch = importlib.util.find_spec("executorch")
    assert executorch is not None
    assert executorch.submodule_search_locations is not None
    environment = {**os.environ, "EXECUTORCH": executorch.submodule_search_locations[0]}

    def make(folder: Path) -> None:
        shutil.copy(source, folder)
        subprocess.run(["sh", "-euc", command], cwd=folder, env=environment, check=True)

    return once("self-check-program", make) / "self_check"


@pytest.fixture
def in_cpp(program: Path) -> SelfCheck:
    def run(bundle: Path) -> bool:
        done = subprocess.run([program, bundle], capture_output=True, text=True, timeout=120, check=False)
        if done.returncode not in (0, 1):
            raise RuntimeError(done.stderr)
        said = {0: "the codes are equal", 1: "the codes differ: this is not the integer function"}[done.returncode]
        assert done.stdout == f"{said}\n"
        return done.returncode == 0

    return run


class _Quiet(http.server.SimpleHTTPRequestHandler):
    def log_message(self, format: str, *arguments: object) -> None:
        pass


@pytest.fixture
def site(tmp_path: Path) -> Iterator[tuple[Path, str]]:
    """A folder, and its address: a page that has the snippet and onnxruntime-web."""
    folder = tmp_path / "site"
    folder.mkdir()
    shutil.copy(SNIPPETS / "self_check.mjs", folder)
    (folder / vendor.MODULE).write_bytes(vendor.module())
    (folder / vendor.WASM).write_bytes(gzip.decompress(vendor.compressed_wasm()))
    names = json.dumps({"imports": {"onnxruntime-web": f"./{vendor.MODULE}"}})
    (folder / "index.html").write_text(f'<!doctype html><script type="importmap">{names}</script>')
    handler = functools.partial(_Quiet, directory=str(folder))
    with http.server.ThreadingHTTPServer(("127.0.0.1", 0), handler) as server:
        thread = threading.Thread(target=server.serve_forever, args=(0.05,))
        thread.start()
        yield folder, f"http://127.0.0.1:{server.server_port}/index.html"
        server.shutdown()
        thread.join()


@pytest.fixture
def in_javascript(site: tuple[Path, str], driven: Driven) -> Callable[..., bool]:
    folder, address = site

    def run(bundle: Path, artifact: str = "onnx") -> bool:
        shutil.copytree(bundle, folder / "bundle", dirs_exist_ok=True)
        driven.open(address)
        found = driven.script(
            "return import('./self_check.mjs').then((m) => m.selfCheck('bundle', arguments[0]))"
            ".catch((error) => String(error))",
            artifact,
        )
        if not isinstance(found, bool):
            raise RuntimeError(found)
        return found

    return run


@pytest.fixture(params=["in_cpp", "in_javascript"])
def self_check(request: pytest.FixtureRequest) -> SelfCheck:
    found: SelfCheck = request.getfixturevalue(request.param)
    return found


def test_it_passes_on_a_bundle(self_check: SelfCheck, small_bundle: Path) -> None:
    assert self_check(small_bundle)


def test_it_passes_on_several_inputs_of_pixels_and_floats(self_check: SelfCheck, two_inputs: Path) -> None:
    assert self_check(two_inputs)


def test_it_passes_with_codes_at_the_border_channels_last(in_javascript: Callable[..., bool], two_inputs: Path) -> None:
    border = Manifest.read(two_inputs).artifacts["onnx-codes"].border
    assert (border.dtype, border.layout) == ("uint8", "NHWC")
    assert in_javascript(two_inputs, "onnx-codes")


def test_it_passes_with_codes_at_the_border_channels_first(in_javascript: Callable[..., bool], tmp_path: Path) -> None:
    older = shutil.copytree(BUNDLES / "schema-2-codes-channels-first", tmp_path / "older")
    golden = Bundle.open(older).golden()
    (older / "golden").mkdir()  # which bundles had not then
    for i, codes in enumerate(golden.inputs.values()):
        (older / golden_file("input", i)).write_bytes(codes.tobytes())
    assert Manifest.read(older).artifacts["onnx-codes"].border.layout == "NCHW"
    assert in_javascript(older, "onnx-codes")


@pytest.mark.parametrize("place", [0, -1])
def test_it_fails_if_one_code_of_any_image_is_another(
    self_check: SelfCheck, damaged: Path, forge: Callable[..., None], place: int
) -> None:
    outputs = [damaged / "golden" / f"output-{i}.i8" for i in range(2)]
    codes = bytearray(b"".join(path.read_bytes() for path in outputs))
    assert json.loads((damaged / "manifest.json").read_text())["golden_sha256"] == hashlib.sha256(codes).hexdigest()
    codes[place] ^= 1
    forge(damaged, lambda values: values.update(golden_sha256=hashlib.sha256(codes).hexdigest()))
    assert not self_check(damaged)


def test_it_fails_on_other_golden_inputs(self_check: SelfCheck, damaged: Path) -> None:
    asked = damaged / "golden" / "input-0.i8"
    content = asked.read_bytes()
    asked.write_bytes(content[len(content) // 7 :] + content[: len(content) // 7])  # the images in another order
    assert not self_check(damaged)


def test_what_is_missing_is_named(self_check: SelfCheck, damaged: Path) -> None:
    (damaged / "golden" / "input-0.i8").unlink()
    with pytest.raises(RuntimeError, match=r"golden/input-0\.i8 cannot be read"):
        self_check(damaged)
