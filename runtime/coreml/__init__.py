"""Core ML programs without Apple hardware: read a saved package, evaluate it, count what runs in int8."""

from litehrnet_stage2.runtime.coreml.evaluate import check_supported, evaluate
from litehrnet_stage2.runtime.coreml.int8_layers import Int8Coverage, int8_coverage
from litehrnet_stage2.runtime.coreml.mil import MilProgram

__all__ = ["Int8Coverage", "MilProgram", "check_supported", "evaluate", "int8_coverage"]
