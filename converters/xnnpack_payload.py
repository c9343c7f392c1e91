"""What a delegate really has XNNPACK do, read back from the bytes it will be given.

The exported graph does not tell: between a quantise and a dequantise XNNPACK's serialiser may fold both into
the operator, or convert to float32, compute there, and convert back.
"""

from __future__ import annotations

import json
import re
import tempfile
from collections.abc import Iterator
from dataclasses import dataclass
from importlib.resources import files
from pathlib import Path

from executorch.backends.xnnpack.serialization.xnnpack_graph_serialize import XNNHeader

from litehrnet_stage2.converters.upstream.executorch_1_5 import decompile_flatbuffer

_SCHEMA = files("executorch.backends.xnnpack.serialization") / "schema.fbs"
_BARE_INFINITY = re.compile(r"\binf\b")
_INTEGER = frozenset(f"xnn_datatype_{name}" for name in ("qint8", "qcint8", "qint32", "qcint32"))


@dataclass(frozen=True)
class DelegateOperator:
    """An operator by XNNPACK's name (`XNNConv2d`), and whether all that it reads and writes is quantised."""

    kind: str
    reads_codes: bool
    writes_codes: bool


def operators(payload: bytes) -> Iterator[DelegateOperator]:
    """The operators in a delegate's payload, in order.

    Raises:
        ValueError: the bytes are no XNNPACK payload.
    """
    header = XNNHeader.from_bytes(payload[: XNNHeader.EXPECTED_LENGTH])
    end = header.flatbuffer_offset + header.flatbuffer_size
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        (folder / "schema.fbs").write_bytes(_SCHEMA.read_bytes())
        (folder / "graph.bin").write_bytes(payload[header.flatbuffer_offset : end])
        decompile_flatbuffer(name, str(folder / "schema.fbs"), str(folder / "graph.bin"), ["--raw-binary"])
        text = (folder / "graph.json").read_text(encoding="utf-8")
        graph = json.loads(_BARE_INFINITY.sub("Infinity", text))  # an open end of a clamp, as flatc prints it
    integer = {}
    for entry in graph["xvalues"]:
        value = entry["xvalue_union"]
        tensor = value.get("tensor_value", value)  # a quantised tensor wraps a plain one
        integer[tensor["id_out"]] = tensor["datatype"] in _INTEGER
    for entry in graph["xnodes"]:
        ids = {field: i for field, i in entry["xnode_union"].items() if field.endswith("_id") and i in integer}
        yield DelegateOperator(
            kind=entry["xnode_union_type"],
            reads_codes=all(integer[i] for field, i in ids.items() if field != "output_id"),
            writes_codes=integer[ids["output_id"]],
        )
