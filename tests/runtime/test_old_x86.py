"""ONNX Runtime on an emulated x86 processor from before VNNI: a setting keeps the function, and is needed."""

from __future__ import annotations

import platform
import subprocess
import sys

import numpy as np
import pytest

from litehrnet_stage2.runtime.bundle import Bundle
from litehrnet_stage2.runtime.programs import onnxruntime_program
from litehrnet_stage2.runtime.session import to_codes

PROGRAM = """
import sys, numpy as np
from pathlib import Path
from litehrnet_stage2.runtime.programs.onnxruntime_program import OnnxRuntimeProgram
model, inputs, outputs, precise = sys.argv[1:]
program = OnnxRuntimeProgram(Path(model).read_bytes(), 1, settings={"session.x64quantprecision": precise})
found = [program.run((x[None],)) for x in np.load(inputs)]
np.savez(outputs, y1=np.concatenate([y[0] for y in found]), y2=np.concatenate([y[1] for y in found]))
"""


def mismatches(qemu: str, bundle: Bundle, folder, precise: str) -> int:
    golden = bundle.golden()
    np.save(folder / "x.npy", golden.x)
    model = bundle.folder / bundle.artifact("onnx")
    words = [model, folder / "x.npy", folder / "y.npz", precise]
    subprocess.run([qemu, "-cpu", "Haswell", sys.executable, "-c", PROGRAM, *words], check=True, capture_output=True)
    with np.load(folder / "y.npz") as found:
        codes = [to_codes(found[spec.name], spec) for spec in bundle.manifest.outputs]
    return sum(
        int(np.count_nonzero(a != b)) for a, b in zip(codes, (golden.outputs["y1"], golden.outputs["y2"]), strict=True)
    )


@pytest.mark.skipif(platform.machine() != "x86_64", reason="Python has to run under an x86 emulator as it is")
def test_haswell_gives_the_golden_codes_with_the_setting_and_not_without(need, bundle: Bundle, tmp_path) -> None:
    qemu = need("qemu-x86_64", "qemu-user")
    assert mismatches(qemu, bundle, tmp_path, "1") == 0
    assert mismatches(qemu, bundle, tmp_path, "0") > 0


@pytest.mark.parametrize(
    ("flags", "settings"),
    [("avx2 fma", {"session.x64quantprecision": "1"}), ("avx512_vnni", {}), ("avx_vnni", {})],
)
def test_the_setting_is_made_where_vnni_is_missing(monkeypatch, tmp_path, flags: str, settings: dict[str, str]) -> None:
    cpuinfo = tmp_path / "cpuinfo"
    cpuinfo.write_text(f"flags : fpu {flags}\n")
    monkeypatch.setattr(platform, "machine", lambda: "x86_64")
    monkeypatch.setattr(onnxruntime_program, "Path", lambda _: cpuinfo)
    assert onnxruntime_program.exact_settings() == settings
