"""The messages of a Core ML specification, from coremltools' `proto` folder alone.

`import coremltools` brings its converters, and with them torch and scikit-learn if they are installed: ten
seconds that reading a program does not need.
"""

from __future__ import annotations

import importlib
import importlib.util
import sys
from types import ModuleType

_NAME = "litehrnet_stage2_coreml_proto"


def message_modules() -> tuple[ModuleType, ModuleType]:
    """The modules `MIL_pb2` and `Model_pb2`.

    Raises:
        ModuleNotFoundError: coremltools is not installed.
    """
    found = importlib.util.find_spec("coremltools")
    if found is None or not found.submodule_search_locations:
        raise ModuleNotFoundError(
            "reading a Core ML program needs coremltools: pip install -e '.[convert]'", name="coremltools"
        )
    if _NAME not in sys.modules:
        package = ModuleType(_NAME)
        package.__path__ = [f"{found.submodule_search_locations[0]}/proto"]
        sys.modules[_NAME] = package
    return importlib.import_module(f"{_NAME}.MIL_pb2"), importlib.import_module(f"{_NAME}.Model_pb2")
