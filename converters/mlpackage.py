"""Saving a Core ML package: equal programs give equal bytes, and nothing stays that only a debugger reads."""

from __future__ import annotations

import json
import shutil
import uuid
from collections.abc import Collection
from pathlib import Path, PurePosixPath
from typing import Any

from coremltools.proto import Model_pb2

from litehrnet_stage2.converters.metadata import describe
from litehrnet_stage2.reference.integer_function import IntegerFunction

DEBUG_MAPPING = "executorch_debug_handle_mapping.json"
"""Which torch operator each of the program's came from: coremltools leaves it beside `Data`, unread by Core ML."""

CONVERSION_DATE = "com.github.apple.coremltools.conversion_date"


def save(model: Any, path: Path, what: str, function: IntegerFunction, images: Collection[str] = ()) -> None:
    """Write the package `path` of a `coremltools` model, replacing one that is there.

    Args:
        model: to write.
        path: of the package.
        what: describes it.
        function: that it is of.
        images: its inputs that are images.
    """
    describe(model, what, function, images)
    shutil.rmtree(path, ignore_errors=True)
    model.save(str(path))
    tidy(path)


def tidy(package: Path) -> None:
    """Take the debug mapping, the date and what is random out of a package, in place."""
    (package / DEBUG_MAPPING).unlink(missing_ok=True)
    manifest = package / "Manifest.json"
    content = json.loads(manifest.read_text(encoding="utf-8"))
    items = {identifier: item["path"] for identifier, item in content["itemInfoEntries"].items()}
    specification = package / "Data" / items[content["rootModelIdentifier"]]

    model = Model_pb2.Model()
    model.ParseFromString(specification.read_bytes())
    model.description.metadata.userDefined.pop(CONVERSION_DATE, None)
    # Written anew, not in place: coremltools leaves the file readable by its owner alone.
    specification.unlink()
    specification.write_bytes(model.SerializeToString(deterministic=True))

    names = {identifier: _identifier(path) for identifier, path in items.items()}
    content["itemInfoEntries"] = dict(
        sorted((names[identifier], item) for identifier, item in content["itemInfoEntries"].items())
    )
    content["rootModelIdentifier"] = names[content["rootModelIdentifier"]]
    manifest.write_text(json.dumps(content, indent=4) + "\n", encoding="utf-8")


def _identifier(path: str) -> str:
    """An item's identifier: a UUID as Core ML wants it, of its path instead of chance."""
    return str(uuid.uuid5(uuid.NAMESPACE_URL, PurePosixPath(path).as_posix()))
