"""Evaluate a saved Core ML program with numpy, at the program's own precision and without Apple hardware.

Where rounding happens, whatever the precision:

- The program's inputs are rounded to their declared type before the first operator.
- An operator takes its floating-point inputs as float32 and computes in float32: a convolution sums in
  float32; functions such as sigmoid are taken in float64 and rounded to float32.
- Its output is rounded once, half to even, to the type that the program declares. In a float32 program
  that changes nothing; in a float16 program each operator's output is a float16, and what is out of range
  becomes infinite.
- Constants that the compiler expands (`constexpr_*`) are operators like the others, so the weights of a
  float16 program are float16.

Apple's runtimes may keep more bits between operators and sum in another order: float16 outputs agree with
theirs to a tolerance. What a program computes exactly, such as sums of integers below 2**24 in float32, has
one result only.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np

from litehrnet_stage2.reference.errors import InputError
from litehrnet_stage2.runtime.coreml.mil import MilProgram, MilTensor, Operation
from litehrnet_stage2.runtime.coreml.operators import OPERATORS
from litehrnet_stage2.runtime.program import Array

_LIST_PARAMETER = "values"  # of `concat`; every other parameter takes one tensor
# What numpy raises when an operator is given what does not fit: a wrong rank, a string for a tensor, a size
# that no memory holds.
_MISFITS = (ValueError, TypeError, AttributeError, IndexError, ArithmeticError, MemoryError)


def evaluate(program: MilProgram, inputs: Mapping[str, Array]) -> dict[str, Array]:
    """Run `program` once.

    Args:
        program: what to run; see `MilProgram.load`.
        inputs: an array for each of `program.inputs`, by name, of the declared shape. Floats are rounded to
            the declared type, other types have to match; an image is uint8.

    Returns:
        An array for each of `program.outputs`, by name, of the declared shape and type.

    Raises:
        ValueError: the inputs do not fit, or an operator is unknown, is given what its documentation does
            not allow, or computes something else than the program declares; the message names the operator.
    """
    check_supported(program)
    if sorted(inputs) != sorted(tensor.name for tensor in program.inputs):
        wanted = ", ".join(str(tensor) for tensor in program.inputs)
        raise InputError(f"the inputs are named {sorted(inputs)}, but the program takes {wanted}")
    values = dict(program.constants)
    for tensor in program.inputs:
        value = np.asarray(inputs[tensor.name])
        if tensor.name in program.images:
            value = _numbers(value, tensor)
        values[tensor.name] = _as_declared(tensor, value, f"input {tensor.name!r} is")
    for operation in program.operations:
        values.update(_run(operation, values))
    return {tensor.name: values[tensor.name] for tensor in program.outputs}


def check_supported(program: MilProgram) -> None:
    """Check that every operator of `program` can be evaluated.

    Raises:
        ValueError: one can not; the message names it and its output, and lists those that can.
    """
    for operation in program.operations:
        if operation.type not in OPERATORS:
            raise InputError(f"{operation} is not one that is evaluated; those are {', '.join(OPERATORS)}")


def _run(operation: Operation, values: Mapping[str, Array]) -> dict[str, Array]:
    def operand(value: str | Array) -> Array | str:
        return _operand(values[value] if isinstance(value, str) else value)

    arguments: dict[str, Any] = {
        parameter: tuple(map(operand, given))
        if parameter == _LIST_PARAMETER
        else operand(operation.argument(parameter))
        for parameter, given in operation.arguments.items()
    }
    if len(operation.outputs) != 1:
        raise InputError(f"{operation} has {len(operation.outputs)} outputs, but each evaluated operator has one")
    (tensor,) = operation.outputs
    try:
        with np.errstate(all="ignore"):
            result = OPERATORS[operation.type](**arguments)
    except _MISFITS as error:
        raise InputError(f"{operation}: {error}") from error
    return {tensor.name: _as_declared(tensor, result, f"{operation} computes")}


def _operand(value: Array) -> Array | str:
    if value.dtype.kind == "U" and value.ndim == 0:
        return str(value)
    return value.astype(np.float32) if value.dtype == np.float16 else value


def _numbers(image: Array, tensor: MilTensor) -> Array:
    """The bytes of an image as float32 numbers, as Core ML gives them to a program."""
    if image.dtype != np.uint8:
        raise InputError(f"input {tensor.name!r} is an image of uint8, and was given as {image.dtype}")
    return image.astype(np.float32)


def _as_declared(tensor: MilTensor, value: Array, what: str) -> Array:
    """`value`, its floats rounded to the declared type; everything else has to be as declared already."""
    fits = len(value.shape) == len(tensor.shape) and all(
        declared in (None, length) for declared, length in zip(tensor.shape, value.shape, strict=True)
    )
    if not fits or (value.dtype != tensor.dtype and {value.dtype.kind, tensor.dtype.kind} != {"f"}):
        raise InputError(f"{what} {value.dtype}{list(value.shape)}, but the program declares {tensor}")
    with np.errstate(over="ignore"):
        return value.astype(tensor.dtype, copy=False)
