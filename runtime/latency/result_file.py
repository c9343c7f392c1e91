"""Result files of `stage2 bench`: read with every field checked, whatever is in them."""

from __future__ import annotations

import re
from pathlib import Path

from litehrnet_stage2.reference.contract.codec import CodecError, decode, parse
from litehrnet_stage2.reference.errors import InputError
from litehrnet_stage2.runtime.latency.result import Result

SCHEMA_VERSION = "4.0"
"""What is written. A later minor has fields that are left out when it is read."""

READ_TOO = ("3",)
"""Older major versions that are still read: 3 differs by a field's name."""

LARGEST_BYTES = 256 * 2**20


class ResultError(InputError):
    """A file is not the result of a benchmark, or of another version."""


def read_result(path: Path) -> Result:
    """Read a result file.

    Raises:
        ResultError: it is not one, or of another version.
        OSError: it cannot be read.
    """
    if path.exists() and (not path.is_file() or path.stat().st_size > LARGEST_BYTES):
        raise ResultError(f"{path} is no file of at most {LARGEST_BYTES // 2**20} MiB: {_REMEDY}")
    try:
        values = parse(path.read_bytes())
    except CodecError as error:
        raise ResultError(f"{path} cannot be read as JSON ({error}): {_REMEDY}") from error
    if not isinstance(values, dict) or "runs" not in values:
        raise ResultError(f"{path} is not a benchmark result: {_REMEDY}")
    version = values.get("schema_version")
    major, minor = SCHEMA_VERSION.split(".")
    said = re.fullmatch(r"(\d{1,4})(?:\.(\d{1,4}))?", str(version))
    if said is None or said[1] not in (major, *READ_TOO):
        raise ResultError(
            f"{path} is of schema version {version!a:.40}, and this reads {SCHEMA_VERSION}: run the benchmark again"
        )
    try:
        return decode(
            Result, values, unknown="ignore" if said[1] == major and int(said[2] or 0) > int(minor) else "refuse"
        )
    except CodecError as error:
        raise ResultError(f"{path} is damaged ({error}): run the benchmark again") from error


_REMEDY = "give files that `stage2 bench --json` wrote"
