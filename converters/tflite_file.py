"""A `.tflite` file: tensors, constants and operators, written with the schema that LiteRT's package carries."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import flatbuffers
import numpy as np
from ai_edge_litert import schema_py_generated as schema
from numpy.typing import NDArray

SIGNATURE = "serving_default"
CONSTANT_ALIGNMENT = 16  # bytes: what the schema asks of a constant, and its own writer does not give

VERSIONS = {
    "ADD": 2,
    "CONCATENATION": 2,
    "CONV_2D": 3,
    "DEPTHWISE_CONV_2D": 3,
    "DEQUANTIZE": 2,
    "HARD_SWISH": 1,
    "LOGISTIC": 2,
    "MAX_POOL_2D": 2,
    "MEAN": 2,
    "MUL": 2,
    "PAD": 2,
    "QUANTIZE": 1,
    "RESHAPE": 1,
    "RESIZE_BILINEAR": 3,
    "TANH": 2,
}
"""The version of each operator: the first that has its int8 form."""

_TYPES = {"float32": schema.TensorType.FLOAT32, "int8": schema.TensorType.INT8, "int32": schema.TensorType.INT32}


class TFLiteFile:
    """The one graph of a file so far. Tensors are numbered in the order in which they are added."""

    def __init__(self) -> None:
        self._tensors: list[schema.TensorT] = []
        self._buffers = [_Buffer()]  # the first one is empty, for tensors that hold no constant
        self._operators: list[schema.OperatorT] = []
        self._kinds: list[str] = []

    def tensor(
        self,
        name: str,
        shape: Sequence[int],
        dtype: str,
        quantization: schema.QuantizationParametersT | None = None,
        *,
        content: NDArray[Any] | None = None,
    ) -> int:
        """Add a tensor, and return its number.

        Args:
            name: that tools show.
            shape: in the file's own order, channels last.
            dtype: `float32`, `int8` or `int32`.
            quantization: of `quantized`, unless it is float32 or an index.
            content: a constant's values.
        """
        buffer = 0
        if content is not None:
            buffer = len(self._buffers)
            little_endian = content.astype(content.dtype.newbyteorder("<"))
            self._buffers.append(_Buffer(data=np.frombuffer(little_endian.tobytes(), np.uint8)))
        self._tensors.append(
            schema.TensorT(
                shape=[int(size) for size in shape],
                type=_TYPES[dtype],
                buffer=buffer,
                name=name,
                quantization=quantization,
                hasRank=True,
            )
        )
        return len(self._tensors) - 1

    def constant(
        self, name: str, values: NDArray[Any], quantization: schema.QuantizationParametersT | None = None
    ) -> int:
        """Add a constant tensor, and return its number."""
        return self.tensor(name, values.shape, values.dtype.name, quantization, content=values)

    def shape(self, tensor: int) -> tuple[int, ...]:
        """The shape of the tensor with that number."""
        return tuple(self._tensors[tensor].shape)

    def operator(self, kind: str, inputs: Sequence[int], output: int, options: Any = None) -> None:
        """Add an operator of a kind in `VERSIONS`; `options` is the schema's object for it, such as `PadOptionsT()`."""
        if kind not in self._kinds:
            self._kinds.append(kind)
        of_type = schema.BuiltinOptions.NONE
        if options is not None:
            of_type = getattr(schema.BuiltinOptions, type(options).__name__.removesuffix("T"))
        self._operators.append(
            schema.OperatorT(
                opcodeIndex=self._kinds.index(kind),
                inputs=list(inputs),
                outputs=[output],
                builtinOptionsType=of_type,
                builtinOptions=options,
            )
        )

    def serialize(self, name: str, inputs: Mapping[str, int], outputs: Mapping[str, int]) -> bytes:
        """The file's bytes; equal graphs give equal bytes. `inputs` and `outputs` name the numbers of the signature."""
        graph = schema.SubGraphT(
            tensors=self._tensors,
            inputs=list(inputs.values()),
            outputs=list(outputs.values()),
            operators=self._operators,
            name=name,
        )
        signature = schema.SignatureDefT(
            inputs=_tensor_maps(inputs), outputs=_tensor_maps(outputs), signatureKey=SIGNATURE
        )
        model = schema.ModelT(
            version=3,
            operatorCodes=[_operator_code(kind) for kind in self._kinds],
            subgraphs=[graph],
            description="litehrnet-stage2",
            buffers=self._buffers,
            signatureDefs=[signature],
        )
        builder = flatbuffers.Builder(1 << 16)
        builder.Finish(model.Pack(builder), b"TFL3")
        return bytes(builder.Output())


def quantized(
    scale: np.float32 | NDArray[np.float32], zero_point: int, *, dimension: int = 0
) -> schema.QuantizationParametersT:
    """How a tensor is quantised: one scale, or one for each channel of a `dimension` with the same zero point."""
    scales = np.atleast_1d(np.asarray(scale, np.float32))
    return schema.QuantizationParametersT(
        scale=scales, zeroPoint=np.full(len(scales), zero_point, np.int64), quantizedDimension=dimension
    )


class _Buffer(schema.BufferT):  # type: ignore[misc]  # the schema is not typed
    """A constant at a multiple of 16 bytes; the schema's own `Pack` gives 4, its numbers or bytes alike."""

    def Pack(self, builder: flatbuffers.Builder) -> int:  # noqa: N802
        data = None
        if self.data is not None:
            builder.StartVector(1, len(self.data), CONSTANT_ALIGNMENT)
            builder.head -= len(self.data)
            builder.Bytes[builder.head : builder.head + len(self.data)] = self.data.tobytes()
            data = builder.EndVector()
        schema.BufferStart(builder)
        if data is not None:
            schema.BufferAddData(builder, data)
        return int(schema.BufferEnd(builder))


def _operator_code(kind: str) -> schema.OperatorCodeT:
    code = getattr(schema.BuiltinOperator, kind)
    # Readers from before 2020 look in the deprecated field, which has one byte.
    return schema.OperatorCodeT(deprecatedBuiltinCode=min(code, 127), builtinCode=code, version=VERSIONS[kind])


def _tensor_maps(names: Mapping[str, int]) -> list[schema.TensorMapT]:
    return [schema.TensorMapT(name=name, tensorIndex=number) for name, number in names.items()]
