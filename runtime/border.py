"""The border of an artifact: from real values, pixels or int8 codes to what it takes, and back from what it gives."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from litehrnet_stage2.reference.contract.artifacts import Border
from litehrnet_stage2.reference.contract.manifest import TensorSpec
from litehrnet_stage2.reference.quantization import Codes
from litehrnet_stage2.runtime.program import Array, Arrays, Floats, OutputError, Program

_PIXEL = np.uint8(128)  # int8 codes and those 128 higher differ in their highest bit


class BorderProgram(Program):
    """A program of a bundle, fed as its artifact wants it.

    Args:
        inner: what runs.
        inputs, outputs: what their codes mean.
        border: how the artifact takes and gives them.
    """

    def __init__(
        self, inner: Program, inputs: Sequence[TensorSpec], outputs: Sequence[TensorSpec], border: Border
    ) -> None:
        self.inner = inner
        self.takes_batches = inner.takes_batches
        self._inputs, self._outputs, self._border = tuple(inputs), tuple(outputs), border

    def prepare(self, *inputs: Array) -> Arrays:
        """What `run` takes, of each input float32 or, of pixels, uint8 `[N,C,H,W]`."""
        if self._border.codes:
            return self.from_codes(*map(quantize, inputs, self._inputs))
        return tuple(
            pixels(quantize(x, spec)) if self._border.is_image(spec.kind) else self._lay_out(real(x, spec))
            for x, spec in zip(inputs, self._inputs, strict=True)
        )

    def from_codes(self, *codes: Codes) -> Arrays:
        """What `run` takes, of int8 codes `[N,C,H,W]` of each input."""
        if self._border.codes:
            return tuple(map(self._lay_out, map(self._flipped, codes)))
        return tuple(
            pixels(q) if self._border.is_image(spec.kind) else self._lay_out(spec.quantization.dequantize(q))
            for q, spec in zip(codes, self._inputs, strict=True)
        )

    def run(self, inputs: Arrays) -> Arrays:
        """One inference on what `prepare` gave."""
        return self.inner.run(inputs)

    def finish(self, outputs: Arrays) -> Arrays:
        """Each output as float32 `[N,C,H,W]`."""
        if self._border.codes:
            pairs = zip(self.to_codes(outputs), self._outputs, strict=True)
            return tuple(spec.quantization.dequantize(codes) for codes, spec in pairs)
        return tuple(y.astype(np.float32, copy=False) for y in self._taken(outputs))

    def to_codes(self, outputs: Arrays) -> Arrays:
        """The int8 codes of each output.

        Raises:
            OutputError: floats that do not lie on the grid, or another shape or number of outputs.
        """
        if self._border.codes:
            return tuple(self._flipped(y).view(np.int8) for y in self._taken(outputs))
        return tuple(map(to_codes, self.finish(outputs), self._outputs))

    def close(self) -> None:
        """Close what runs."""
        self.inner.close()

    def _lay_out(self, x: Array) -> Array:
        x = x if self._border.codes else x.astype(self._border.dtype, copy=False)
        if self._border.layout == "NCHW":
            return np.ascontiguousarray(x)
        if len(crossing := self._border.shape(x.shape)) < x.ndim:
            return np.ascontiguousarray(x).reshape(crossing)
        last = np.ascontiguousarray(x.transpose(0, 2, 3, 1))
        return last if self._border.layout == "NHWC" else last.transpose(0, 3, 1, 2)

    def _taken(self, outputs: Arrays) -> Arrays:
        """The outputs as NCHW, their number and shapes checked."""
        if len(outputs) != len(self._outputs):
            raise OutputError(f"the artifact gave {len(outputs)} outputs, where its manifest has {len(self._outputs)}")
        outputs = tuple(
            y.reshape(len(y), *spec.shape[1:]) if self._crosses_reshaped(y, spec) else y
            for y, spec in zip(outputs, self._outputs, strict=True)
        )
        if self._border.layout == "NHWC":
            outputs = tuple(y.transpose(0, 3, 1, 2) for y in outputs)
        for y, spec in zip(outputs, self._outputs, strict=True):
            check_shape(y, spec)
        return outputs

    def _crosses_reshaped(self, y: Array, spec: TensorSpec) -> bool:
        """Whether an output, of any number of images, has fewer dimensions than its tensor, as its border says."""
        crossing = self._border.shape(spec.shape)
        return y.ndim == len(crossing) < len(spec.shape) and y.shape[1:] == crossing[1:]

    def _flipped(self, codes: Array) -> Array:
        return codes.view(np.uint8) ^ np.uint8(self._border.offset) if self._border.offset else codes


def quantize(x: Array, spec: TensorSpec) -> Codes:
    """The int8 codes of real values float32, or of pixels uint8."""
    if x.dtype == np.uint8:
        return (x ^ _PIXEL).view(np.int8)
    return spec.quantization.quantize(x)


def pixels(codes: Codes) -> Array:
    """The bytes of images uint8 `[N,C,H,W]`; a program makes of them what its library calls an image."""
    return np.ascontiguousarray(codes).view(np.uint8) ^ _PIXEL


def real(x: Array, spec: TensorSpec) -> Floats:
    """The real values of an input: itself, or of pixels uint8 what their codes mean."""
    return spec.quantization.dequantize(quantize(x, spec)) if x.dtype == np.uint8 else x


def check_shape(y: Array, spec: TensorSpec) -> None:
    """Check an output's shape, but for the batch.

    Raises:
        OutputError: it has another.
    """
    if y.shape[1:] != spec.shape[1:]:
        raise OutputError(f"`{spec.name}` has shape {list(y.shape)}, the manifest says {list(spec.shape)}")


def to_codes(y: Floats, spec: TensorSpec) -> Codes:
    """The codes that float outputs `[N,C,H,W]` stand for.

    Raises:
        OutputError: a wrong shape, or values off the grid by more than float32 rounding explains.
    """
    check_shape(y, spec)
    q = spec.quantization
    with np.errstate(invalid="ignore"):  # the code of a NaN is anything, and refused
        codes = q.quantize(y)
    worst = float(np.abs(y / q.scale - (codes.astype(np.float32) - q.zero_point)).max())
    if not worst < 1e-3:
        raise OutputError(
            f"`{spec.name}` is {worst:.3g} steps off its grid of scale {spec.scale:.6g}: the artifact computes "
            "another function than its manifest says"
        )
    return codes
