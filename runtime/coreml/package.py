"""The files of an `.mlpackage` folder: where its manifest and its model say they are, and never outside of it."""

from __future__ import annotations

import json
from dataclasses import dataclass
from pathlib import Path, PurePosixPath

from litehrnet_stage2.reference.errors import InputError

_MODEL_PATH = "@model_path"


@dataclass(frozen=True)
class Package:
    """A package's folder and its model's specification; both without symbolic links in their paths."""

    root: Path
    model: Path

    @classmethod
    def open(cls, path: Path) -> Package:
        """Look up the model in the manifest of the folder at `path`.

        Raises:
            ValueError: `path` is no package, its manifest names no model, or the model is not a file in it.
        """
        manifest = path / "Manifest.json"
        try:
            root = path.resolve(strict=True)
            content = json.loads(_inside(root, manifest).read_text(encoding="utf-8"))
            relative = content["itemInfoEntries"][content["rootModelIdentifier"]]["path"]
            model = PurePosixPath(relative)
        except (OSError, RecursionError) as error:
            raise InputError(f"{path} is not an .mlpackage folder: {manifest} cannot be read: {error}") from error
        except (KeyError, TypeError, json.JSONDecodeError, UnicodeDecodeError) as error:
            raise InputError(f"{manifest} does not say where the package's model is: {error!r}") from error
        return cls(root, _inside(root, root / "Data" / model))

    def weight_file(self, name: str) -> Path:
        """The file that the specification calls `name`, `@model_path/` being the specification's own folder.

        Raises:
            ValueError: that is not a file in the package.
        """
        parts = PurePosixPath(name).parts
        if len(parts) < 2 or parts[0] != _MODEL_PATH:
            raise InputError(f"{self.model} names the weight file {name!r}, but only {_MODEL_PATH}/... is read")
        return _inside(self.root, self.model.parent.joinpath(*parts[1:]))


def _inside(root: Path, path: Path) -> Path:
    """`path` with all symbolic links followed, if that is a file below `root`."""
    try:
        resolved = path.resolve(strict=True)
    except (OSError, RuntimeError, ValueError) as error:
        raise InputError(f"{path} is missing from the package {root}: {error}") from error
    if not resolved.is_relative_to(root):
        raise InputError(f"{path} leads to {resolved}, outside of the package {root}: refused")
    if not resolved.is_file():
        raise InputError(f"{path} of the package {root} is not a file")
    return resolved
