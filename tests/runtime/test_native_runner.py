"""The native runner, run as a user runs it: flags in, JSON and files out, and never a crash."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import zipfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from litehrnet_stage2.runtime.bundle import Bundle
from litehrnet_stage2.runtime.devices import DeviceError, MissingToolError, RunnerBuild, build_runner
from litehrnet_stage2.runtime.devices.cache import build_once
from litehrnet_stage2.runtime.devices.toolchain import canonical_arch, host_arch
from litehrnet_stage2.runtime.devices.wheels import Wheel
from litehrnet_stage2.runtime.session import to_codes

STATUS = {"flags": 2, "model": 3, "input": 4, "execution": 5, "crash": 70}


def run(runner: RunnerBuild, *words: object) -> tuple[int, dict[str, Any]]:
    done = subprocess.run([runner.binary, *map(str, words)], capture_output=True, timeout=60, check=False)
    return done.returncode, json.loads(done.stdout)


def refusal(runner: RunnerBuild, *words: object) -> tuple[str, str]:
    """Kind and message of the error that these flags lead to."""
    status, result = run(runner, *words)
    error = result["error"]
    assert status == STATUS[error["kind"]]
    return error["kind"], error["message"]


def test_outputs_are_the_golden_codes(runner: RunnerBuild, bundle: Bundle, pte: Path, tmp_path: Path) -> None:
    golden = bundle.golden()
    np.save(tmp_path / "x.npy", golden.x)
    status, result = run(runner, "--model", pte, "--input", tmp_path / "x.npy", "--output", tmp_path / "y")
    assert status == 0
    assert result["samples"] == len(golden.x)
    for i, codes in enumerate((golden.outputs["y1"], golden.outputs["y2"])):
        y = np.load(tmp_path / f"y.{i}.npy")
        np.testing.assert_array_equal(to_codes(y, bundle.manifest.outputs[i]), codes)


@pytest.mark.parametrize("flag", ["--help", "-h"])
def test_help_names_every_flag_and_status(runner: RunnerBuild, flag: str) -> None:
    done = subprocess.run([runner.binary, flag], capture_output=True, text=True, timeout=60, check=False)
    assert done.returncode == 0
    for word in ("--model", "--input", "--output", "--warmup", "--iterations", "--threads", "--affinity", "70"):
        assert word in done.stdout


def test_every_query_is_reported(runner: RunnerBuild, pte: Path, sample: Path) -> None:
    status, result = run(runner, "--model", pte, "--input", sample, "--warmup", 4, "--iterations", 9)
    assert status == 0
    assert (len(result["warmup_ns"]), len(result["query_ns"])) == (4, 9)
    assert all(ns > 0 for ns in result["query_ns"])
    assert result["load_ms"] > 0
    assert result["first_ms"] > 0
    assert 1 < result["rss_peak_mib"] < 200
    assert result["outputs_repeat"] is True
    assert [output["dtype"] for output in result["outputs"]] == ["<f4", "<f4"]
    assert ("asimd" if runner.arch == "aarch64" else "avx2") in result["cpu_features"]


@pytest.mark.parametrize("threads", [1, 2])
def test_threads_are_the_threads_of_the_process(runner: RunnerBuild, pte: Path, sample: Path, threads: int) -> None:
    _, result = run(runner, "--model", pte, "--input", sample, "--threads", threads, "--iterations", 2)
    assert result["threads"] == threads
    assert result["process_threads"] == threads


def test_affinity_binds_the_process(runner: RunnerBuild, pte: Path, sample: Path) -> None:
    core = max(os.sched_getaffinity(0))
    status, _ = run(runner, "--model", pte, "--input", sample, "--affinity", f"{core}-{core},{core}")
    assert status == 0
    kind, message = refusal(runner, "--model", pte, "--input", sample, "--affinity", "1000-1003")
    assert kind == "flags"
    assert "Invalid argument" in message


def test_raw_and_npy_inputs_give_the_same_bytes(runner: RunnerBuild, pte: Path, sample: Path, tmp_path: Path) -> None:
    raw = tmp_path / "x.bin"
    raw.write_bytes(np.load(sample).tobytes())
    for path, prefix in ((sample, "npy"), (raw, "raw")):
        run(runner, "--model", pte, "--input", path, "--output", tmp_path / prefix)
    for i in range(2):
        assert (tmp_path / f"npy.{i}.npy").read_bytes() == (tmp_path / f"raw.{i}.npy").read_bytes()


def test_several_inputs_of_several_types(runner: RunnerBuild, tmp_path: Path) -> None:
    torch = pytest.importorskip("torch")
    exir = pytest.importorskip("executorch.exir")

    class Sum(torch.nn.Module):
        def forward(self, codes: Any, floats: Any) -> Any:
            return codes.to(torch.float32) + floats

    example = (torch.zeros(2, 3, dtype=torch.int8), torch.zeros(2, 3))
    program = exir.to_edge(torch.export.export(Sum(), example)).to_executorch()
    model = tmp_path / "sum.pte"
    model.write_bytes(program.buffer)
    codes, floats = np.arange(12, dtype=np.int8).reshape(4, 3) - 6, np.full((4, 3), 0.5, np.float32)
    np.save(tmp_path / "codes.npy", codes)
    (tmp_path / "floats.bin").write_bytes(floats.tobytes())
    inputs = ("--input", tmp_path / "codes.npy", "--input", tmp_path / "floats.bin")
    status, result = run(runner, "--model", model, *inputs, "--output", tmp_path / "sum")
    assert (status, result["samples"]) == (0, 2)
    np.testing.assert_array_equal(np.load(tmp_path / "sum.0.npy"), codes + floats)

    kind, message = refusal(runner, "--model", model, *inputs[:2])
    assert (kind, message) == ("input", "the program has 2 inputs, but 1 --input files were given")
    floats[:2].tofile(tmp_path / "floats.bin")
    assert "holds 1 samples" in refusal(runner, "--model", model, *inputs)[1]


def test_files_are_in_c_order_whatever_the_program_has(
    runner: RunnerBuild, codes_bundle: Bundle, tmp_path: Path
) -> None:
    golden, spec = codes_bundle.golden(), codes_bundle.manifest.inputs[0]
    codes = np.round(golden.x / np.float32(spec.scale)) + spec.zero_point
    np.save(tmp_path / "x.npy", codes.astype(np.int8))
    model = codes_bundle.folder / codes_bundle.artifact("executorch-codes")
    status, result = run(runner, "--model", model, "--input", tmp_path / "x.npy", "--output", tmp_path / "y")
    assert status == 0
    assert [output["dtype"] for output in result["outputs"]] == ["|i1", "|i1"]
    np.testing.assert_array_equal(np.load(tmp_path / "y.0.npy"), golden.outputs["y1"])
    np.testing.assert_array_equal(np.load(tmp_path / "y.1.npy"), golden.outputs["y2"])


def test_a_program_that_reads_behind_its_input_is_caught(
    runner: RunnerBuild, in_place: Callable[[str, int], tuple[Path, np.ndarray]], tmp_path: Path
) -> None:
    """XNNPACK does so where a pixel does not fill its vectors: such an input has to be copied, others need not be."""
    for border, channels, status in (("codes", 4, STATUS["crash"]), ("codes", 16, 0), ("float", 16, 0)):
        model, x = in_place(border, channels)
        np.save(tmp_path / "x.npy", x)
        assert run(runner, "--model", model, "--input", tmp_path / "x.npy")[0] == status, (border, channels)


@pytest.mark.parametrize(
    ("words", "says"),
    [
        ([], "--model is missing"),
        (["--model"], "--model needs a value"),
        (["--modle", "x"], "unknown flag --modle: the flags are --model --input"),
        (["--threads", "0"], "--threads (=0) must be a whole number >= 1"),
        (["--iterations", "9999999999"], "--iterations (=9999999999) must be a whole number >= 0"),
        (["--warmup", "3x"], "--warmup (=3x) must be a whole number"),
        (["--affinity", "3-1"], "--affinity (=1) must be a whole number >= 3"),
        (["--affinity", "99999"], "names a core above"),
    ],
)
def test_wrong_flags_are_named(runner: RunnerBuild, words: list[str], says: str) -> None:
    kind, message = refusal(runner, *words)
    assert kind == "flags"
    assert says in message


def test_wrong_inputs_are_named(runner: RunnerBuild, pte: Path, sample: Path, tmp_path: Path) -> None:
    x = np.load(sample)
    path = tmp_path / "bad.npy"

    def message() -> str:
        kind, text = refusal(runner, "--model", pte, "--input", path)
        assert kind == "input"
        return text

    assert "No such file" in message()
    np.save(path, x[:, :3])
    assert "has shape [3, 3, 16, 24], but input 0 has shape [1, 4, 16, 24]" in message()
    np.save(path, x[0])
    assert "has shape [4, 16, 24]" in message()
    np.save(path, x[:0])
    assert "has shape [0, 4, 16, 24]" in message()
    np.save(path, x.astype(np.float64))
    assert "does not hold <f4, the element type of input 0" in message()
    np.save(path, np.asfortranarray(x))
    assert "Fortran order" in message()
    for keep in (0, 3, 9, 60, 127, 128, 1000, len(sample.read_bytes()) - 1):
        path.write_bytes(sample.read_bytes()[:keep])
        assert "truncated" in message()
    path.unlink()
    path.mkdir()
    assert str(path) in message()


def test_an_output_that_cannot_be_written_is_an_error(
    runner: RunnerBuild, pte: Path, sample: Path, tmp_path: Path
) -> None:
    words = ("--model", pte, "--input", sample, "--output")
    assert "No such file" in refusal(runner, *words, tmp_path / "missing" / "y")[1]
    (tmp_path / "y.0.npy").symlink_to("/dev/full")
    assert "No space left" in refusal(runner, *words, tmp_path / "y")[1]


def test_no_damaged_program_ends_without_json(runner: RunnerBuild, pte: Path, sample: Path, tmp_path: Path) -> None:
    content, random = pte.read_bytes(), np.random.default_rng(0)
    damaged = [b"", b"PK\x03\x04", content[:4], content[: len(content) // 2], content[:-1]]
    for _ in range(25):
        flipped = bytearray(content)
        for at in random.integers(0, len(content), 8):
            flipped[at] ^= 1 << random.integers(8)
        damaged.append(bytes(flipped))
    refused = 0
    for program in damaged:
        (path := tmp_path / "bad.pte").write_bytes(program)
        status, result = run(runner, "--model", path, "--input", sample)
        assert status in (0, *STATUS.values())
        assert ("error" in result) == (status != 0)
        refused += status != 0
    assert refused >= 5

    kind, message = refusal(runner, "--model", tmp_path / "missing.pte")
    assert (kind, "No such file" in message) == ("model", True)


def test_the_build_runs_by_its_own_loader(runner: RunnerBuild, pte: Path, sample: Path) -> None:
    command = runner.command(str(runner.folder))
    assert command[0].startswith(str(runner.folder))
    done = subprocess.run([*command, "--model", pte, "--input", sample], capture_output=True, check=True)
    assert json.loads(done.stdout)["samples"] == 3
    mapped = subprocess.run(
        [runner.loader, "--library-path", f"{runner.folder}:{runner.loader.parent}", "--list", runner.binary],
        capture_output=True,
        text=True,
        check=True,
    ).stdout
    libraries = [line.split("=>")[1].split()[0] for line in mapped.splitlines() if "=>" in line]
    assert len(libraries) >= 10
    outside = [lib for lib in libraries if not lib.startswith(str(runner.folder)) and "ld-linux" not in lib]
    assert outside == []


def test_two_builds_at_once_give_one_whole_folder(runner: RunnerBuild, tmp_path: Path) -> None:
    del runner  # only that a compiler is there
    program = (
        "import sys; from pathlib import Path\n"
        "from litehrnet_stage2.runtime.devices import build_runner\n"
        f"print(build_runner({host_arch()!r}, Path(sys.argv[1])).binary)"
    )
    builds = [subprocess.Popen([sys.executable, "-c", program, tmp_path], stdout=subprocess.PIPE) for _ in range(2)]
    printed = {build.communicate()[0] for build in builds}
    assert [build.returncode for build in builds] == [0, 0]
    (binary,) = printed
    assert os.access(binary.strip(), os.X_OK)
    assert [path.name.split("-")[0] for path in tmp_path.iterdir()] == ["runner"]


def test_a_failed_build_leaves_nothing(tmp_path: Path) -> None:
    def build(folder: Path) -> None:
        (folder / "half").touch()
        raise DeviceError("no")

    with pytest.raises(DeviceError):
        build_once(tmp_path / "thing", build)
    assert list(tmp_path.iterdir()) == []


def test_a_missing_compiler_names_the_package(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PATH", str(tmp_path))
    monkeypatch.delenv("CXX", raising=False)
    with pytest.raises(MissingToolError, match=r"`apt-get install g\+\+`"):
        build_runner(host_arch(), tmp_path)
    other = {"x86_64": "aarch64", "aarch64": "x86_64"}[host_arch()]
    with pytest.raises(MissingToolError, match=r"`apt-get install g\+\+-12-[a-z0-9-]+-linux-gnu`"):
        build_runner(other, tmp_path)


def test_an_unknown_processor_lists_the_known_ones() -> None:
    assert canonical_arch("arm64") == "aarch64"
    with pytest.raises(DeviceError, match=r"'armv7l'.*x86_64 and aarch64"):
        canonical_arch("armv7l")


def test_a_wheel_with_another_hash_is_refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    wheel = tmp_path / "fake-1.0-py3-none-any.whl"
    with zipfile.ZipFile(wheel, "w") as archive:
        archive.writestr("fake/lib/a", "a")
        archive.writestr("fake-1.0.dist-info/METADATA", "Metadata-Version: 2.1\nName: fake\nVersion: 1.0\n")
        archive.writestr("fake-1.0.dist-info/WHEEL", "Wheel-Version: 1.0\nTag: py3-none-any\n")
        archive.writestr("fake-1.0.dist-info/RECORD", "")
    monkeypatch.setenv("PIP_NO_INDEX", "1")
    monkeypatch.setenv("PIP_FIND_LINKS", str(tmp_path))
    fake = Wheel(name="fake", version="1.0", platform="manylinux_2_28_aarch64", sha256="0" * 64)
    with pytest.raises(DeviceError, match=r"(?s)fetching fake==1\.0.*HASH"):
        fake.unpacked(tmp_path / "cache")
    assert list((tmp_path / "cache").iterdir()) == []
