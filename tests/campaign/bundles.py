"""Hostile bundles: the manifest, the function, the golden codes, and what native libraries and the evaluator open."""

from __future__ import annotations

import io
import json
import shutil
import zipfile
from collections.abc import Callable, Iterator
from pathlib import Path

import numpy as np
from typer.testing import CliRunner

from litehrnet_stage2.apps.cli import app
from litehrnet_stage2.reference.contract.manifest import FILE_NAME, FUNCTION, GOLDEN, HASH_NAME, FileEntry, seal
from litehrnet_stage2.reference.errors import Stage2Error
from litehrnet_stage2.runtime import Bundle, open_session
from tests.campaign.calibration import lying_header
from tests.campaign.damage import EVIL, TEXTS, accident, as_json, lie, many_flips
from tests.campaign.judge import Case


def accidents(folder: Path, scratch: Path, seed: int) -> Iterator[Case]:
    """Any file changed, exchanged with another, missing or a link; nothing is made good."""
    rng = np.random.default_rng(seed)
    original = folder / "bundle"
    files = [path.relative_to(original) for path in sorted(original.rglob("*")) if path.is_file()]
    bundle = shutil.copytree(original, scratch / "bundle", dirs_exist_ok=True)
    while True:
        name = files[rng.integers(len(files))]
        shutil.rmtree(bundle)
        shutil.copytree(original, bundle)
        kind = ("accident", "accident", "accident", "exchanged", "missing", "link")[rng.integers(6)]
        path = bundle / name
        if kind == "accident":
            kind, bad = accident(path.read_bytes(), rng)
            path.write_bytes(bad)
        elif kind == "exchanged":
            other = files[(files.index(name) + 1 + rng.integers(len(files) - 1)) % len(files)]
            path.write_bytes((original / other).read_bytes())
        else:
            path.unlink()
            if kind == "link":
                path.symlink_to(original / name)
        # A link in the place of the manifest is followed: nothing was changed.
        due = not (kind == "link" and name.name in (FILE_NAME, HASH_NAME))
        yield Case(f"{kind} of {name}", lambda bundle=bundle: _read_all(bundle), due=due)


def manifests(folder: Path, scratch: Path, seed: int) -> Iterator[Case]:
    """A manifest that lies and is sealed anew: inspected, and run where it is taken."""
    rng = np.random.default_rng(seed)
    bundle = shutil.copytree(folder / "bundle", scratch / "bundle", dirs_exist_ok=True)
    text = (bundle / FILE_NAME).read_bytes()
    good = json.loads(text)
    while True:
        kind = ("lie", "lie", "lie", "flips", "text")[rng.integers(5)]
        what = ""
        if kind == "lie":
            what, values = lie(good, rng)
            bad = as_json(values)
        else:
            bad = many_flips(text, rng) if kind == "flips" else TEXTS[rng.integers(len(TEXTS))]
        (bundle / FILE_NAME).write_bytes(bad)
        seal(bundle)
        yield Case(f"{kind} {what}", lambda bundle=bundle: _inspected(bundle))


def functions(folder: Path, scratch: Path, seed: int) -> Iterator[Case]:
    """A `function.npz` that lies, its hash made good."""
    return _archives(FUNCTION, folder, scratch, seed, lambda bundle: _ran(bundle, "golden"))


def goldens(folder: Path, scratch: Path, seed: int) -> Iterator[Case]:
    """A `golden.npz` that lies, its hash made good."""
    return _archives(GOLDEN, folder, scratch, seed, lambda bundle: Bundle.open(bundle).golden())


def packages(folder: Path, scratch: Path, seed: int) -> Iterator[Case]:
    """An `.mlpackage` that was edited, its hashes made good: Core ML's evaluator tries it."""
    inside = [path.relative_to(folder / "bundle") for path in (folder / "bundle" / "stage2.mlpackage").rglob("*")]
    files = sorted(path.as_posix() for path in inside if (folder / "bundle" / path).is_file())
    return _opened("coreml-eval", files, folder, scratch, seed)


def onnx(folder: Path, scratch: Path, seed: int) -> Iterator[Case]:
    """An `.onnx` that was edited, its hash made good."""
    return _opened("onnxruntime", ["stage2.onnx"], folder, scratch, seed)


def pte(folder: Path, scratch: Path, seed: int) -> Iterator[Case]:
    """A `.pte` that was edited, its hash made good."""
    return _opened("executorch", ["stage2.pte"], folder, scratch, seed)


def _archives(name: str, folder: Path, scratch: Path, seed: int, use: Callable[[Path], object]) -> Iterator[Case]:
    rng = np.random.default_rng(seed)
    bundle = shutil.copytree(folder / "bundle", scratch / "bundle", dirs_exist_ok=True)
    good = (bundle / name).read_bytes()
    with zipfile.ZipFile(io.BytesIO(good)) as archive:
        members = {member: archive.read(member) for member in archive.namelist()}
    while True:
        kind = ("flips", "graph", "graph", "graph", "array", "array", "bomb", "member", "other")[rng.integers(9)]
        bad, what = dict(members), ""
        if kind == "graph" and "graph.npy" in bad:
            graph = json.loads(np.load(io.BytesIO(bad["graph.npy"])).tobytes())
            what, graph = lie(graph, rng)
            content = TEXTS[rng.integers(len(TEXTS))] if rng.integers(10) == 0 else as_json(graph)
            bad["graph.npy"] = _npy(np.frombuffer(content, np.uint8))
        elif kind == "array":
            what = list(bad)[rng.integers(len(bad))]
            bad[what] = _evil_array(bad[what], rng)
        elif kind == "bomb":
            bad["bomb.npy"] = _npy(np.zeros(2**26, np.int8))
        elif kind == "member":
            what = list(bad)[rng.integers(len(bad))]
            content = bad.pop(what)
            if rng.integers(2):
                bad[f"x{EVIL[16 + rng.integers(8)]}".replace("\ud800", "?")[:1000]] = content
        if kind == "flips":
            content = many_flips(good, rng)
        elif kind == "other":
            others = (b"", b"PK\x05\x06" + bytes(18), rng.bytes(500), good[: len(good) // 2], good * 2)
            content = others[rng.integers(len(others))]
        else:
            content = _zip(bad)
        replace(bundle, name, content)
        yield Case(f"{kind} {what[:100]}", lambda bundle=bundle: use(bundle))


def _opened(runtime: str, files: list[str], folder: Path, scratch: Path, seed: int) -> Iterator[Case]:
    rng = np.random.default_rng(seed)
    original = folder / "bundle"
    bundle = shutil.copytree(original, scratch / "bundle", dirs_exist_ok=True)
    while True:
        name = files[rng.integers(len(files))]
        good = (original / name).read_bytes()
        kind = ("accident", "flips", "flips", "head", "other")[rng.integers(5)]
        if kind == "accident":
            bad = accident(good, rng)[1]
        elif kind == "flips":
            bad = many_flips(good, rng)
        elif kind == "head":  # where formats have their tables
            bad = many_flips(good[:400], rng) + good[400:]
        else:
            others = (b"", rng.bytes(3000), good[: len(good) // 2], good * 2, bytes(3000))
            bad = others[rng.integers(len(others))]
        replace(bundle, name, bad)
        yield Case(f"{kind} in {name}", lambda bundle=bundle: _ran(bundle, runtime))
        replace(bundle, name, good)


def replace(bundle: Path, name: str, content: bytes) -> None:
    """Give a file another content, all hashes made good."""
    (bundle / name).write_bytes(content)
    manifest = json.loads((bundle / FILE_NAME).read_text())
    entry = FileEntry.of(content)
    manifest["files"][name] = {"sha256": entry.sha256, "size_bytes": entry.size_bytes}
    (bundle / FILE_NAME).write_text(json.dumps(manifest))
    seal(bundle)


def _read_all(folder: Path) -> None:
    bundle = Bundle.open(folder)
    for name in bundle.manifest.files:
        bundle.read(name)
    for entry in bundle.manifest.artifacts.values():
        list(bundle.files_under(entry.file))


def _ran(folder: Path, runtime: str) -> None:
    bundle = Bundle.open(folder)
    with open_session(bundle, runtime) as session:
        session.run_codes(*(x[:1] for x in bundle.golden().real))


def _inspected(folder: Path) -> None:
    done = CliRunner().invoke(app, ["inspect", str(folder)])
    if done.exit_code not in (0, 2) or (done.exception and not isinstance(done.exception, SystemExit)):
        raise AssertionError(f"inspect ended with {done.exit_code}, {done.exception!r}")
    if "\x1b" in done.output:
        raise AssertionError("an escape went through to the terminal")
    if done.exit_code:
        raise Stage2Error("refused")
    _ran(folder, "golden")


def _evil_array(content: bytes, rng: np.random.Generator) -> bytes:
    array = np.load(io.BytesIO(content))
    kind = rng.integers(7)
    if kind == 0:
        return lying_header(rng)[1] + array.tobytes()
    if kind == 1:
        return many_flips(content, rng)
    if kind == 2:
        return _npy(array.astype(str(rng.choice(["f8", "i8", "f2", "u1", "?"]))))
    if kind == 3:
        return _npy(array.reshape(-1)[: array.size // 2])
    if kind == 4:
        return _npy(np.zeros((0, *array.shape[1:]), array.dtype))
    if array.dtype.kind == "f":
        return _npy(np.full_like(array, rng.choice([np.nan, np.inf, -1, 0, 1e-45, 1e38])))
    limits = (0, 1) if array.dtype.kind == "b" else (np.iinfo(array.dtype).min, np.iinfo(array.dtype).max)
    return _npy(np.full_like(array, limits[rng.integers(2)]))


def _npy(array: np.ndarray) -> bytes:
    file = io.BytesIO()
    np.save(file, array)
    return file.getvalue()


def _zip(members: dict[str, bytes]) -> bytes:
    file = io.BytesIO()
    with zipfile.ZipFile(file, "w", zipfile.ZIP_DEFLATED) as archive:
        for name, content in members.items():
            archive.writestr(name, content)
    return file.getvalue()
