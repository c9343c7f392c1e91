"""Core ML programs without Apple hardware: read a saved package, and evaluate it."""

from litehrnet_stage2.runtime.coreml.evaluate import check_supported, evaluate
from litehrnet_stage2.runtime.coreml.mil import MilProgram

__all__ = ["MilProgram", "check_supported", "evaluate"]
