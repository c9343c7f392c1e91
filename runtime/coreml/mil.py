"""Read a saved Core ML program: the package's specification and weights, as plain data.

Everything comes from the `.mlpackage` folder and nothing from outside of it. Only the shape of the program is
understood here; what an operator means is the evaluator's business.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path
from types import MappingProxyType
from typing import Any

import numpy as np
from numpy.typing import NDArray

from litehrnet_stage2.reference.errors import InputError
from litehrnet_stage2.runtime.coreml.package import Package
from litehrnet_stage2.runtime.coreml.proto import message_modules
from litehrnet_stage2.runtime.coreml.weight_blob import WeightFile

# What the specification calls a type, its numpy equal, and the field an immediate value of it is stored in.
_TYPES: dict[str, tuple[np.dtype[Any], str]] = {
    "BOOL": (np.dtype(np.bool_), "bools"),
    "STRING": (np.dtype(np.str_), "strings"),
    "FLOAT16": (np.dtype(np.float16), "bytes"),
    "FLOAT32": (np.dtype(np.float32), "floats"),
    "FLOAT64": (np.dtype(np.float64), "doubles"),
    "INT8": (np.dtype(np.int8), "bytes"),
    "INT16": (np.dtype(np.int16), "ints"),
    "INT32": (np.dtype(np.int32), "ints"),
    "INT64": (np.dtype(np.int64), "longInts"),
    "UINT8": (np.dtype(np.uint8), "bytes"),
    "UINT16": (np.dtype(np.uint16), "ints"),
    "UINT32": (np.dtype(np.uint32), "bytes"),
    "UINT64": (np.dtype(np.uint64), "longInts"),
}
_IMMEDIATE_FIELDS = dict(_TYPES.values())
_CHANNELS = {"RGB": 3, "GRAYSCALE": 1}  # of an image, by its colour space
_LARGEST_LENGTH = 2**31 - 1


@dataclass(frozen=True, kw_only=True)
class MilTensor:
    """A named tensor. A length that is only known when the program runs is `None` in `shape`."""

    name: str
    dtype: np.dtype[Any]
    shape: tuple[int | None, ...]

    def __str__(self) -> str:
        lengths = ", ".join("?" if length is None else str(length) for length in self.shape)
        return f"{self.name} {self.dtype}[{lengths}]"


@dataclass(frozen=True, kw_only=True, eq=False)
class Operation:
    """One operator call.

    Attributes:
        type: the operator, in the names of the Model Intermediate Language (`conv`, `quantize`).
        arguments: for each parameter its values, most often one: the name of a tensor defined before, or a
            literal. Strings are arrays of rank 0 too. The operation's own name is not among them.
    """

    type: str
    arguments: Mapping[str, tuple[str | NDArray[Any], ...]]
    outputs: tuple[MilTensor, ...]

    def __str__(self) -> str:
        return _describe(self)

    def argument(self, parameter: str) -> str | NDArray[Any]:
        """What is given for a parameter that takes one value.

        Raises:
            ValueError: no value is given, or several are.
        """
        values = self.arguments.get(parameter, ())
        if len(values) != 1:
            raise InputError(f"{self} is given {len(values)} values for {parameter!r}, but that takes one")
        return values[0]

    def reads(self) -> Iterable[str]:
        """The names of the tensors that this operation reads, once for each place it reads them in."""
        return (value for values in self.arguments.values() for value in values if isinstance(value, str))


@dataclass(frozen=True, kw_only=True, eq=False)
class MilProgram:
    """A Core ML program of one straight block of tensor operators.

    Attributes:
        inputs: what a prediction takes.
        outputs: what a prediction returns.
        constants: the value of each `const`, read-only.
        operations: everything but the `const`s; each reads only what is defined before it.
        images: the inputs that a prediction takes as images, RGB or grey; the program has their bytes as numbers.
    """

    inputs: tuple[MilTensor, ...]
    outputs: tuple[MilTensor, ...]
    constants: Mapping[str, NDArray[Any]]
    operations: tuple[Operation, ...]
    images: frozenset[str] = frozenset()

    @classmethod
    def load(cls, path: Path) -> MilProgram:
        """Read the program of the `.mlpackage` folder at `path`.

        Raises:
            ModuleNotFoundError: coremltools is missing, whose protocol buffers read the specification.
            ValueError: the package is incomplete, damaged, or names a file outside of itself, or its program
                is more than one straight block of tensor operators; the message says which and where.
        """
        mil, model = message_modules()
        package = Package.open(path)
        reader = _Reader(package, type_name=mil.DataType.Name)
        return reader.program(_parse(model.Model(), package.model))

    def operator_counts(self) -> dict[str, int]:
        """How often each operator occurs, `const` left out, by name."""
        return dict(sorted(Counter(operation.type for operation in self.operations).items()))


def _parse(message: Any, path: Path) -> Any:
    """`message`, filled from the file at `path`."""
    from google.protobuf.message import DecodeError

    try:
        message.ParseFromString(path.read_bytes())
    except (DecodeError, OSError) as error:
        raise InputError(f"{path} is not a Core ML specification, or it is damaged: {error}") from error
    return message


class _Reader:
    """Turns the parts of a specification into plain data; holds the weight files that it has opened."""

    def __init__(self, package: Package, *, type_name: Callable[[int], str]) -> None:
        self._package = package
        self._type_name = type_name
        self._weight_files: dict[str, WeightFile] = {}

    def program(self, model: Any) -> MilProgram:
        kind = model.WhichOneof("Type")
        if kind != "mlProgram":
            raise InputError(f"{self._package.model} holds {kind or 'no model'}, but only an mlProgram is read")
        function = _choose(model.mlProgram.functions, model.description.defaultFunctionName or "main", "function")
        block = _choose(function.block_specializations, function.opset, "operator set")

        inputs = tuple(self.tensor(item) for item in function.inputs)
        tensors = {tensor.name: tensor for tensor in inputs}
        constants: dict[str, NDArray[Any]] = {}
        operations: list[Operation] = []
        for item in block.operations:
            operation = self.operation(item)
            for name in operation.reads():
                if name not in tensors:
                    raise InputError(f"{operation} reads {name!r}, but nothing before it defines that")
            for tensor in operation.outputs:
                if tensor.name in tensors:
                    raise InputError(f"{operation} defines {tensor.name!r}, but that is defined before it")
                tensors[tensor.name] = tensor
            if operation.type == "const":
                constants.update(_constant(operation))
            else:
                operations.append(operation)
        for name in block.outputs:
            if name not in tensors:
                raise InputError(f"the program returns {name!r}, but no operator defines that")
        for what, declared, actual in (
            ("input", model.description.input, [tensor.name for tensor in inputs]),
            ("output", model.description.output, list(block.outputs)),
        ):
            names = [feature.name for feature in declared]
            # A model of several functions describes each in a place of its own.
            if names and sorted(names) != sorted(actual):
                raise InputError(f"the model's description has {what}s {names}, but its program has {actual}")
        return MilProgram(
            inputs=inputs,
            outputs=tuple(tensors[name] for name in block.outputs),
            constants=MappingProxyType(constants),
            operations=tuple(operations),
            images=_images(model.description.input, tensors),
        )

    def operation(self, item: Any) -> Operation:
        where = _describe(item)
        if item.blocks:
            raise InputError(f"{where} holds blocks of its own, but only straight programs are read")
        # Up to iOS17, constants that the compiler expands have their parameters among the attributes.
        arguments: dict[str, tuple[str | NDArray[Any], ...]] = {
            name: (self.value(value, f"{where}, attribute {name!r}"),)
            for name, value in item.attributes.items()
            if name != "name"
        }
        for name, argument in item.inputs.items():
            arguments[name] = tuple(
                self.value(binding.value, f"{where}, parameter {name!r}")
                if binding.WhichOneof("binding") == "value"
                else binding.name
                for binding in argument.arguments
            )
        return Operation(
            type=item.type,
            arguments=MappingProxyType(arguments),
            outputs=tuple(self.tensor(output) for output in item.outputs),
        )

    def tensor(self, item: Any) -> MilTensor:
        dtype, shape = self.tensor_type(item.type, repr(item.name))
        return MilTensor(name=item.name, dtype=dtype, shape=shape)

    def tensor_type(self, item: Any, where: str) -> tuple[np.dtype[Any], tuple[int | None, ...]]:
        kind = item.WhichOneof("type")
        if kind != "tensorType":
            raise InputError(f"{where} has a {kind}, but only tensors are read")
        try:
            name = self._type_name(item.tensorType.dataType)
        except ValueError:
            name = str(item.tensorType.dataType)
        if name not in _TYPES:
            raise InputError(f"{where} holds {name}, but only {', '.join(_TYPES)} are read")
        shape = tuple(
            dimension.constant.size if dimension.WhichOneof("dimension") == "constant" else None
            for dimension in item.tensorType.dimensions
        )
        if item.tensorType.rank != len(shape):
            raise InputError(f"{where} has {len(shape)} dimensions but rank {item.tensorType.rank}")
        if any(length is not None and length > _LARGEST_LENGTH for length in shape):
            raise InputError(f"{where} has shape {shape}, but a length is at most {_LARGEST_LENGTH}")
        return _TYPES[name][0], shape

    def value(self, item: Any, where: str) -> NDArray[Any]:
        dtype, lengths = self.tensor_type(item.type, where)
        shape = tuple(length for length in lengths if length is not None)
        if len(shape) != len(lengths):
            raise InputError(f"{where} is a constant of shape {lengths}, but a constant has all its lengths")
        match item.WhichOneof("value"):
            case "blobFileValue":
                blob = item.blobFileValue
                if blob.fileName not in self._weight_files:
                    self._weight_files[blob.fileName] = WeightFile(self._package.weight_file(blob.fileName))
                return self._weight_files[blob.fileName].read(blob.offset, dtype=dtype, shape=shape)
            case "immediateValue" if item.immediateValue.WhichOneof("value") == "tensor":
                return _immediate(item.immediateValue.tensor, dtype, shape, where)
            case _:
                raise InputError(f"{where} holds no tensor")


def _immediate(item: Any, dtype: np.dtype[Any], shape: tuple[int, ...], where: str) -> NDArray[Any]:
    field = item.WhichOneof("value")
    if field != _IMMEDIATE_FIELDS[dtype]:
        raise InputError(f"{where} is {dtype} but has its values in {field}, not in {_IMMEDIATE_FIELDS[dtype]}")
    values = getattr(item, field).values
    try:
        flat = (
            np.frombuffer(values, dtype.newbyteorder("<")).astype(dtype, copy=False)
            if field == "bytes"
            else np.array(values, dtype)
        )
        shaped = flat.reshape(shape)
    except (ValueError, OverflowError) as error:
        raise InputError(f"{where} does not hold what its type {dtype}{list(shape)} says: {error}") from error
    shaped.flags.writeable = False
    return shaped


def _images(described: Iterable[Any], tensors: Mapping[str, MilTensor]) -> frozenset[str]:
    """The inputs that are images, of the size and with the channels that the program has."""
    images = {feature.name: feature.type.imageType for feature in described if feature.type.HasField("imageType")}
    for name, image in images.items():
        space = image.ColorSpace.Name(image.colorSpace)
        if space not in _CHANNELS:
            raise InputError(f"input {name!r} is an image in {space}, but only {' and '.join(_CHANNELS)} are read")
        shape = (1, _CHANNELS[space], image.height, image.width)
        if tensors[name].shape != shape:
            raise InputError(f"input {name!r} is an image of {list(shape)}, but the program declares {tensors[name]}")
    return frozenset(images)


def _describe(operation: Any) -> str:
    """How a message names an operation, read already or still in the specification's form."""
    return f"operator {operation.type!r} (output {', '.join(repr(output.name) for output in operation.outputs)})"


def _constant(operation: Operation) -> dict[str, NDArray[Any]]:
    value = operation.argument("val")
    if not isinstance(value, np.ndarray) or len(operation.outputs) != 1:
        raise InputError(f"{operation} does not hold one value")
    (tensor,) = operation.outputs
    if (value.dtype.type, value.shape) != (tensor.dtype.type, tensor.shape):
        raise InputError(f"{operation} declares {tensor}, but holds {value.dtype}{list(value.shape)}")
    return {tensor.name: value}


def _choose(options: Mapping[str, Any], name: str, what: str) -> Any:
    if name not in options:
        raise InputError(f"the program has no {what} {name!r}; it has {', '.join(sorted(options)) or 'none'}")
    return options[name]
