"""Whether an `.onnx` file is all there is: one that has data elsewhere is refused before any library sees it.

A tensor of an `.onnx` may lie in another file, by its path: one that no hash covers, which is whatever lies in the
current folder of whoever opens it; ONNX Runtime knows even tensors at an address of its own memory. So the messages of
the file are walked down to every tensor, as protobuf writes them, without a library.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping

from litehrnet_stage2.reference.errors import InputError

MOST_FIELDS = 2_000_000
"""That are looked at: of a network with 100,000 operators."""

_INSIDE: Mapping[str, Mapping[int, str]] = {
    "model": {7: "graph", 20: "training", 25: "function"},
    "training": {1: "graph", 2: "graph"},
    "function": {7: "node", 11: "attribute"},
    "graph": {1: "node", 5: "tensor", 15: "sparse"},
    "node": {5: "attribute"},
    "attribute": {5: "tensor", 6: "graph", 10: "tensor", 11: "graph", 22: "sparse", 23: "sparse"},
    "sparse": {1: "tensor", 2: "tensor"},
    "tensor": {},
}
"""By kind of message: the numbers of the fields that lead to tensors, and what each holds (onnx.proto)."""

_NAMES_A_PLACE = b"location"
"""The key without which ONNX Runtime takes no tensor from elsewhere. Most files do not hold the word at all."""

_EXTERNAL_DATA, _DATA_LOCATION = 13, 14  # of a tensor
_MALFORMED = "it is no .onnx file, or is damaged: convert the checkpoint again"


class OnnxFileError(InputError):
    """A file is no `.onnx`, or not all there is; the message is the end of a sentence."""


def check_self_contained(content: bytes) -> None:
    """Check that no tensor of an `.onnx` lies elsewhere.

    Raises:
        OnnxFileError: one does, or the file names places and is no protobuf message.
    """
    if _NAMES_A_PLACE not in content:
        return
    waiting = [("model", memoryview(content))]
    seen = 0
    while waiting:
        kind, message = waiting.pop()
        for number, value in _fields(message):
            if (seen := seen + 1) > MOST_FIELDS:
                raise OnnxFileError(f"it has more than {MOST_FIELDS:,} fields, which no network here has")
            inner = _INSIDE[kind].get(number)
            if inner is not None:
                if isinstance(value, int):
                    raise OnnxFileError(_MALFORMED)
                waiting.append((inner, value))
            elif kind == "tensor" and (number == _EXTERNAL_DATA or (number == _DATA_LOCATION and value != 0)):
                raise OnnxFileError(
                    "it refers to data outside of its file, which no hash covers: convert the checkpoint again"
                )


def _fields(message: memoryview) -> Iterator[tuple[int, memoryview | int]]:
    """The number of each field of a message, and its bytes; of numbers, their value or 0 where it has a fixed width."""
    at, end = 0, len(message)
    while at < end:
        tag, at = _varint(message, at)
        value: memoryview | int = 0
        match tag & 7:
            case 0:
                value, at = _varint(message, at)
            case 1:
                at += 8
            case 2:
                size, at = _varint(message, at)
                value = message[at : at + size]
                at += size
            case 5:
                at += 4
            case _:
                raise OnnxFileError(_MALFORMED)
        if at > end or tag >> 3 == 0:
            raise OnnxFileError(_MALFORMED)
        yield tag >> 3, value


def _varint(message: memoryview, at: int) -> tuple[int, int]:
    """A number of 7 bits a byte, and where it ends."""
    value = 0
    for shift in range(0, 70, 7):
        if at >= len(message):
            break
        value |= (message[at] & 0x7F) << shift
        if message[at] < 0x80:
            return value, at + 1
        at += 1
    raise OnnxFileError(_MALFORMED)
