"""Ways to tamper with a Core ML package of a bundle, and to make the manifest agree afterwards."""

from __future__ import annotations

import json
from pathlib import Path

from coremltools.proto import Model_pb2

from litehrnet_stage2.reference.manifest import FileEntry

MODEL = "Data/com.apple.CoreML/model.mlmodel"
WEIGHTS = "Data/com.apple.CoreML/weights/weight.bin"


def flip_a_weight(package: Path) -> None:
    """Flip the sign bit of the first stored int8 weight of the first convolution."""
    model = Model_pb2.Model()
    model.ParseFromString((package / MODEL).read_bytes())
    (block,) = model.mlProgram.functions["main"].block_specializations.values()
    constant = next(operation for operation in block.operations if operation.type == "constexpr_affine_dequantize")
    record = constant.attributes["quantized_data"].blobFileValue.offset
    content = bytearray((package / WEIGHTS).read_bytes())
    start = int.from_bytes(content[record + 16 : record + 24], "little")  # behind sentinel, type and size
    content[start] ^= 0x80
    (package / WEIGHTS).write_bytes(content)


def rename_an_operator(package: Path) -> None:
    """Have the program's first addition be something that no operator set has."""
    model = Model_pb2.Model()
    model.ParseFromString((package / MODEL).read_bytes())
    (block,) = model.mlProgram.functions["main"].block_specializations.values()
    next(operation for operation in block.operations if operation.type == "add").type = "frobnicate"
    (package / MODEL).write_bytes(model.SerializeToString())


def cut_the_weight_file_short(package: Path) -> None:
    """Leave the first half."""
    content = (package / WEIGHTS).read_bytes()
    (package / WEIGHTS).write_bytes(content[: len(content) // 2])


def forge_manifest(bundle: Path) -> None:
    """Rewrite the manifest's hashes, as whoever tampers with a bundle can."""
    path = bundle / "manifest.json"
    values = json.loads(path.read_text())
    for name in values["files"]:
        entry = FileEntry.of((bundle / name).read_bytes())
        values["files"][name] = {"sha256": entry.sha256, "size_bytes": entry.size_bytes}
    path.write_text(json.dumps(values))
