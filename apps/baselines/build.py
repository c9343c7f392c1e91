"""Builds what stock tools make of the same weights: the artifacts a user would have had, to be timed beside ours.

A bundle holds the integer function alone, so the float network is made from it (`reference/float_module.py`).
Built on demand into the user's cache.
"""

from __future__ import annotations

import contextlib
import hashlib
import importlib
import sys
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TypeAlias, cast

from litehrnet_stage2.reference.cache_folder import cache_root
from litehrnet_stage2.reference.contract.manifest import FUNCTION, GOLDEN
from litehrnet_stage2.reference.errors import InputError, Stage2Error
from litehrnet_stage2.reference.integer_function import IntegerFunction
from litehrnet_stage2.runtime.bundle import Bundle
from litehrnet_stage2.runtime.devices.cache import build_once, fingerprint
from litehrnet_stage2.runtime.fidelity import photographs
from litehrnet_stage2.runtime.latency.environment import versions
from litehrnet_stage2.runtime.latency.plan import Candidate
from litehrnet_stage2.runtime.program import Floats

Build: TypeAlias = "Callable[[IntegerFunction, tuple[Floats, ...], Path], None]"

WEIGHTS = "the bundle's own: every baseline has its int8 weights and biases, dequantised"


class BaselineUnavailableError(Stage2Error):
    """A package that builds a baseline is missing; the message says which."""


@dataclass(frozen=True)
class Baseline:
    """One artifact of stock tools.

    Attributes:
        group: what `--against` calls it.
        library: that runs it.
        file: its name in the cache.
        module: that has `build(function, inputs, path)`, float32 `[N,C,H,W]` of each input to calibrate on.
        build: the name of that function.
        tools: packages whose versions decide what it becomes.
        description: what it is, in a sentence.
    """

    group: str
    library: str
    file: str
    module: str
    build: str
    tools: tuple[str, ...]
    description: str

    def load(self) -> Build:
        """Import the exporter, which may take seconds.

        Raises:
            BaselineUnavailableError: a package it needs is missing.
        """
        try:
            module = importlib.import_module(self.module)
        except ImportError as error:
            extra = "baselines" if self.group == "litert" else "convert"
            raise BaselineUnavailableError(
                f"{self.file} cannot be built ({error}): `pip install -e '.[{extra}]'`, or run without `{self.group}`"
            ) from error
        return cast(Build, getattr(module, self.build))


_PTE = "litehrnet_stage2.apps.baselines.executorch_files"
_ONNX = "litehrnet_stage2.apps.baselines.onnx_files"
_LITERT = "litehrnet_stage2.apps.baselines.litert_files"

BASELINES = {
    "fp32 .pte": Baseline(
        "fp32", "executorch", "fp32.pte", _PTE, "build_fp32", ("torch", "executorch"), "float32, XNNPACK's partitioner"
    ),
    "stock int8 .pte": Baseline(
        "stock",
        "executorch",
        "stock-int8.pte",
        _PTE,
        "build_stock_int8",
        ("torch", "executorch", "torchao"),
        "XNNPACKQuantizer, per channel, calibrated",
    ),
    "fp32 .onnx": Baseline(
        "fp32", "onnxruntime", "fp32.onnx", _ONNX, "build_fp32", ("torch", "onnx", "onnxscript"), "torch.onnx.export"
    ),
    "stock int8 .onnx": Baseline(
        "stock",
        "onnxruntime",
        "stock-int8.onnx",
        _ONNX,
        "build_stock_int8",
        ("torch", "onnx", "onnxscript", "onnxruntime"),
        "onnxruntime.quantization.quantize_static with its defaults, calibrated",
    ),
    "unaided int8 .onnx": Baseline(
        "stock",
        "onnxruntime",
        "unaided-int8.onnx",
        _ONNX,
        "build_unaided_int8",
        ("torch", "onnx", "onnxscript"),
        "torch.onnx.export of the frozen torch module as it is, signed int8",
    ),
    "LiteRT int8": Baseline(
        "litert",
        "litert",
        "int8.tflite",
        _LITERT,
        "build_int8",
        ("torch", "litert-torch", "ai-edge-quantizer"),
        "ai-edge-quantizer, static int8, int8 NHWC in and out",
    ),
}
"""By the name shown; a bundle's artifacts in the order of its runtimes come before these."""

GROUPS = tuple(dict.fromkeys(baseline.group for baseline in BASELINES.values()))


def baseline_candidates(
    bundle: Bundle,
    groups: Sequence[str],
    *,
    threads: Sequence[int],
    cache_dir: Path | None = None,
    progress: Callable[[str], None] = lambda step: None,
) -> list[Candidate]:
    """The baselines of these groups, built for a bundle where the cache does not hold them.

    Raises:
        ValueError: an unknown group.
        BaselineUnavailableError: a package that a baseline needs is missing.
    """
    if unknown := [group for group in groups if group not in GROUPS]:
        raise InputError(f"unknown baselines {unknown[0]!r} to run against: known are {', '.join(GROUPS)}")
    candidates = []
    for name, baseline in BASELINES.items():
        if baseline.group in groups:
            path = build_baseline(bundle, baseline, cache_dir=cache_dir, progress=progress)
            candidates += [
                Candidate(
                    name=name,
                    library=baseline.library,
                    path=str(path),
                    sha256=hashlib.sha256(path.read_bytes()).hexdigest(),
                    threads=count,
                    exact=False,
                    baseline=True,
                    floating=baseline.group == "fp32",
                    description=baseline.description,
                )
                for count in dict.fromkeys(threads)
            ]
    return candidates


def build_baseline(
    bundle: Bundle,
    baseline: Baseline,
    *,
    cache_dir: Path | None = None,
    progress: Callable[[str], None] = lambda step: None,
) -> Path:
    """The baseline's file in the cache, built if it is not there; keyed by the bundle and the tools' versions."""
    made_with = [f"{tool} {version}" for tool, version in versions(baseline.tools).items()]
    made_from = [bundle.manifest.files[name].sha256 for name in (FUNCTION, GOLDEN)]
    key = fingerprint(baseline.file, *made_from, *made_with)

    def build(folder: Path) -> None:
        progress(f"building {baseline.file} ({baseline.description})")
        with contextlib.redirect_stdout(sys.stderr):  # exporters chat, and standard output is for results
            baseline.load()(bundle.function(), calibration(bundle), folder / baseline.file)

    return build_once((cache_dir or cache_root()) / "baselines" / key, build) / baseline.file


def calibration(bundle: Bundle) -> tuple[Floats, ...]:
    """The golden inputs that are photographs' features, without those made to saturate: float32 `[N,C,H,W]` of each."""
    golden = bundle.golden()
    return tuple(x[: photographs(golden)] for x in golden.real)
