"""Which of a bundle's artifacts can be timed on a machine, and as what."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from litehrnet_stage2.reference.errors import InputError
from litehrnet_stage2.runtime.bundle import Bundle
from litehrnet_stage2.runtime.latency.plan import Candidate


@dataclass(frozen=True)
class Benchable:
    """A runtime whose artifact is one file: its target in the bundle, its library, and what it is."""

    target: str
    library: str
    codes: str | None
    description: str


BENCHABLE = {
    "executorch": Benchable("executorch", "executorch", None, "the integer function, float32 in and out"),
    "onnxruntime": Benchable("onnx", "onnxruntime", None, "the integer function, float32 in and out"),
    "executorch-codes": Benchable(
        "executorch-codes", "executorch", "int8 NHWC", "the integer function, int8 codes in and out, channels last"
    ),
    "onnxruntime-codes": Benchable(
        "onnx-codes", "onnxruntime", "uint8 NCHW", "the integer function, uint8 codes in and out"
    ),
}
"""By the name of the runtime."""


def bundle_candidates(bundle: Bundle, *, runtimes: Sequence[str] | None, threads: Sequence[int]) -> list[Candidate]:
    """A bundle's artifacts in these runtimes, or in all it has artifacts for, with each count of threads.

    Raises:
        ValueError: an unknown runtime, a thread count below 1, or a bundle with nothing that can be timed.
        BundleError: the bundle has no artifact for a runtime asked for, or one that was changed or cut short.
    """
    if runtimes is None:
        runtimes = [name for name, entry in BENCHABLE.items() if entry.target in bundle.manifest.artifacts]
        if not runtimes:
            raise InputError(f"{bundle.folder} has no artifact that can be timed here: convert again")
    if unknown := [name for name in runtimes if name not in BENCHABLE]:
        raise InputError(f"unknown runtime {unknown[0]!r}: those that can be timed are {', '.join(BENCHABLE)}")
    if wrong := [count for count in threads if count < 1]:
        raise InputError(f"`threads` (={wrong[0]}) must be at least 1")
    candidates = []
    for name in dict.fromkeys(runtimes):
        entry = BENCHABLE[name]
        artifact = bundle.artifact(entry.target)
        bundle.read(artifact)  # so that a damaged one is refused before anything is timed
        candidates += [
            Candidate(
                name=name,
                library=entry.library,
                path=str(bundle.folder / artifact),
                sha256=bundle.manifest.files[artifact].sha256,
                threads=count,
                exact=True,
                codes=entry.codes,
                description=entry.description,
                coverage=bundle.manifest.coverage.get(entry.target),
            )
            for count in dict.fromkeys(threads)
        ]
    return candidates
