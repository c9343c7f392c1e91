"""Makes candidates of those of a bundle's artifacts that can be timed on a machine."""

from __future__ import annotations

import contextlib
import dataclasses
from collections.abc import Mapping, Sequence

from litehrnet_stage2.reference.contract.artifacts import ARTIFACTS, LIBRARIES, Artifact
from litehrnet_stage2.reference.contract.manifest import BundleError
from litehrnet_stage2.reference.errors import InputError
from litehrnet_stage2.reference.known_files import is_known
from litehrnet_stage2.runtime.border import BorderProgram
from litehrnet_stage2.runtime.bundle import Bundle
from litehrnet_stage2.runtime.latency.plan import Candidate
from litehrnet_stage2.runtime.program import Program, RuntimeUnavailableError, library_version
from litehrnet_stage2.runtime.session import check_threads
from litehrnet_stage2.runtime.trial import Request, TrialError, try_first

BENCHABLE: Mapping[str, Artifact] = {
    name: row
    for row in ARTIFACTS.values()
    for name, library in row.runtimes.items()
    if library == row.library and not LIBRARIES[library].system
}
"""Artifacts that are timed in the library that apps open them with, by the name of the runtime."""


def bundle_candidates(bundle: Bundle, *, runtimes: Sequence[str] | None, threads: Sequence[int]) -> list[Candidate]:
    """A bundle's artifacts in these runtimes, or in all it has artifacts for, with each count of threads.

    Raises:
        ValueError: an unknown runtime, a thread count below 1, or a bundle with nothing that can be timed.
        BundleError: the bundle has no artifact for a runtime asked for, or one that was changed or cut short.
    """
    if runtimes is None:
        runtimes = [name for name, entry in BENCHABLE.items() if entry.name in bundle.manifest.artifacts]
        if not runtimes:
            raise InputError(f"{bundle.folder} has no artifact that can be timed here: convert again")
    if unknown := [name for name in runtimes if name not in BENCHABLE]:
        raise InputError(f"unknown runtime {unknown[0]!r}: those that can be timed are {', '.join(BENCHABLE)}")
    for count in threads:
        check_threads(count)
    candidates = []
    for name in dict.fromkeys(runtimes):
        entry = BENCHABLE[name]
        artifact = bundle.artifact(entry.name)
        border = bundle.manifest.artifacts[entry.name].border
        bundle.read(artifact)  # so that a damaged one is refused before anything is timed
        candidates += [
            Candidate(
                name=name,
                library=entry.library,
                path=str(bundle.folder / artifact),
                sha256=bundle.manifest.files[artifact].sha256,
                threads=count,
                exact=entry.exact,
                border=border,
                description=f"the integer function, {border}",
                coverage=dataclasses.asdict(bundle.manifest.coverage[entry.name]),
            )
            for count in dict.fromkeys(threads)
        ]
    return candidates


def try_candidates(bundle: Bundle, candidates: Sequence[Candidate]) -> None:
    """Try the bundle's own artifacts that come from elsewhere, as a session would, before they are timed.

    What is missing here is said where the candidate is timed.

    Raises:
        BundleError: a library refused one, crashed, hung, or asked for too much memory.
    """
    specs = bundle.manifest.inputs, bundle.manifest.outputs
    for one in candidates:
        if one.border is None or is_known(one.sha256):  # made here
            continue
        request = Request(library=one.library, exact=one.exact, inputs=specs[0], outputs=specs[1], border=one.border)
        content = bundle.read(bundle.artifact(BENCHABLE[one.name].name))
        with contextlib.suppress(RuntimeUnavailableError):
            version = library_version(one.library)
            try:
                try_first(request, content, sha256=one.sha256, version=version)
            except TrialError as error:
                raise BundleError(f"{one.path} cannot be opened: {error}") from error


def with_codes(program: Program, bundle: Bundle, candidate: Candidate) -> Program:
    """The program, quantising at its border if its artifact does not."""
    if candidate.border is None:
        return program
    return BorderProgram(program, bundle.manifest.inputs, bundle.manifest.outputs, candidate.border)
