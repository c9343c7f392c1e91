"""The table of artifacts: what `stage2 convert` can make, and what runs it. Every other list of them is read off here.

To add a format:

1. write `converters/<name>.py`, whose `convert(function, path, deployment)` writes the file and returns its coverage;
2. add one row to `ARTIFACTS`.

If none of `LIBRARIES` opens the format, a program for it stands in `runtime/programs/`, with one row there.
`convert --targets`, the default runtimes of `parity`, `bench`, devices, `doctor` and the manifest follow from the rows.
"""

from __future__ import annotations

from collections.abc import Container, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Literal, TypeAlias

from litehrnet_stage2.reference.errors import InputError

Dtype: TypeAlias = Literal["float32", "float16", "int8", "uint8"]
Layout: TypeAlias = Literal["NCHW", "channels_last", "NHWC"]


@dataclass(frozen=True)
class Border:
    """How an artifact takes its inputs and gives its outputs.

    Attributes:
        dtype: `int8` and `uint8` are codes, floats are real values.
        offset: what is added to an int8 code: 128 where `uint8` codes are.
        layout: `NCHW`; `channels_last`, the same shape with the channels of a pixel side by side in memory; or
            `NHWC`, where the shape says so too.
        images: whether an input of pixels crosses as an image of bytes, RGB or grey, beside floats.
    """

    dtype: Dtype
    offset: int = 0
    layout: Layout = "NCHW"
    images: bool = False

    def __post_init__(self) -> None:
        if self.images and self.codes:
            raise InputError(f"images cross beside floats alone, not beside {self.dtype} codes")
        if self.offset != (due := 128 if self.dtype == "uint8" else 0):
            raise InputError(f"the offset of {self.dtype} is {due}, not {self.offset}")

    @property
    def codes(self) -> bool:
        """Whether codes cross it, and no floats."""
        return self.dtype in ("int8", "uint8")

    def is_image(self, kind: str) -> bool:
        """Whether an input of that kind (see `manifest.TensorSpec`) crosses as an image."""
        return self.images and kind == "pixels"

    def shape(self, tensor: tuple[int, ...]) -> tuple[int, ...]:
        """The shape in which a tensor `[1, C, H, W]` crosses the border.

        ExecuTorch reads the layout off the strides, which do not tell where there is one channel or one cell: such a
        tensor crosses as `[1, H, W]` or `[1, C]`.
        """
        count, channels, height, width = tensor
        if self.layout == "NHWC":
            return count, height, width, channels
        if self.layout == "channels_last" and channels == 1:
            return count, height, width
        if self.layout == "channels_last" and height == width == 1:
            return count, channels
        return tensor

    def __str__(self) -> str:
        kind = f"{self.dtype} codes" if self.codes else self.dtype
        last = "" if self.layout == "NCHW" else ", channels last"
        return f"{kind} in and out{last}{', pixels as images' if self.images else ''}"


FLOAT = Border("float32")


@dataclass(frozen=True, kw_only=True)
class Library:
    """Something that runs artifacts.

    Attributes:
        title: its name for people.
        program: the module that opens an artifact in it: `open_program` and `library_version`.
        packages: that it needs, as they are imported.
        extra: of this distribution, that brings them; empty if the base install does.
        system: where it runs, by `platform.system()`; empty for everywhere. `where` says it to people.
        on_devices: whether a device can have it too.
    """

    title: str
    program: str
    packages: tuple[str, ...]
    extra: str = ""
    system: str = ""
    where: str = ""
    on_devices: bool = False


LIBRARIES: Mapping[str, Library] = {
    "golden": Library(title="golden", program="litehrnet_stage2.runtime.programs.golden_program", packages=()),
    "executorch": Library(
        title="ExecuTorch",
        program="litehrnet_stage2.runtime.programs.executorch_program",
        packages=("torch", "executorch"),
        extra="convert",
        on_devices=True,
    ),
    "onnxruntime": Library(
        title="ONNX Runtime",
        program="litehrnet_stage2.runtime.programs.onnxruntime_program",
        packages=("onnxruntime",),
        on_devices=True,
    ),
    "litert": Library(
        title="LiteRT",
        program="litehrnet_stage2.runtime.programs.litert_program",
        packages=("ai_edge_litert",),
        extra="litert",
        on_devices=True,
    ),
    "coreml-eval": Library(
        title="Core ML evaluator",
        program="litehrnet_stage2.runtime.programs.coreml_eval_program",
        packages=("coremltools",),
        extra="convert",
    ),
    "coreml": Library(
        title="Core ML",
        program="litehrnet_stage2.runtime.programs.coreml_program",
        packages=("coremltools",),
        extra="convert",
        system="Darwin",
        where="a Mac with macOS 14 or later",
    ),
}
"""By the name that a result gives it."""


@dataclass(frozen=True, kw_only=True)
class Artifact:
    """One format.

    Attributes:
        name: what `--targets` takes.
        suffix: of the file, after the name of the function: `stage2` and `-codes.onnx`.
        library: that apps open it with.
        border: how it is fed.
        exact: whether it computes the integer function; one that does not is judged against the float network.
        default: whether `convert` makes it unless told otherwise.
        converter: module of `converters` that writes it.
        made_with: packages that takes, as they are installed, which `extra` brings.
        runtimes: what runs it, by the name that `--runtime` takes: a key of `LIBRARIES`. The first one is what it is
            checked in; there is none where nothing but a phone runs it.
        settings: what `library` has to be told, in its own words, so that the artifact computes its function.
    """

    name: str
    suffix: str
    library: str
    border: Border = FLOAT
    exact: bool = True
    default: bool = False
    converter: str
    made_with: tuple[str, ...]
    extra: str = "convert"
    runtimes: Mapping[str, str]
    settings: Mapping[str, str] = field(default_factory=dict)

    def file(self, function: str) -> str:
        """Its file, or folder, in the bundle of a function of that name."""
        return f"{function}{self.suffix}"


_XNNPACK = {"backend": "XnnpackBackend"}
_LITERT = {"XNNPACK": "one delegate with every operator"}
_COREML_CPU = {"computeUnits": "cpuOnly"}
_ONNXRUNTIME = {
    "graph_optimization_level": "ORT_ENABLE_EXTENDED or higher",
    "session.x64quantprecision": "1 on x86 without VNNI, or unset",
}

ARTIFACTS: Mapping[str, Artifact] = {
    row.name: row
    for row in (
        Artifact(
            name="executorch",
            suffix=".pte",
            library="executorch",
            default=True,
            converter="to_executorch",
            made_with=("torch", "executorch"),
            runtimes={"executorch": "executorch"},
            settings=_XNNPACK,
        ),
        Artifact(
            name="litert",
            suffix=".tflite",
            library="litert",
            border=Border("float32", layout="NHWC"),
            default=True,
            converter="to_litert",
            made_with=("torch", "ai-edge-litert"),
            runtimes={"litert": "litert"},
            settings=_LITERT,
        ),
        Artifact(
            name="onnx",
            suffix=".onnx",
            library="onnxruntime",
            default=True,
            converter="to_onnx",
            made_with=("torch", "onnx"),
            runtimes={"onnxruntime": "onnxruntime"},
            settings=_ONNXRUNTIME,
        ),
        Artifact(
            name="executorch-codes",
            suffix="-codes.pte",
            library="executorch",
            border=Border("int8", layout="channels_last"),
            converter="to_executorch_codes",
            made_with=("torch", "executorch"),
            runtimes={"executorch-codes": "executorch"},
            settings=_XNNPACK,
        ),
        Artifact(
            name="litert-codes",
            suffix="-codes.tflite",
            library="litert",
            border=Border("int8", layout="NHWC"),
            converter="to_litert_codes",
            made_with=("torch", "ai-edge-litert"),
            runtimes={"litert-codes": "litert"},
            settings=_LITERT,
        ),
        Artifact(
            name="onnx-codes",
            suffix="-codes.onnx",
            library="onnxruntime",
            border=Border("uint8", offset=128, layout="NHWC"),
            converter="to_onnx_codes",
            made_with=("torch", "onnx"),
            runtimes={"onnxruntime-codes": "onnxruntime"},
            settings=_ONNXRUNTIME,
        ),
        Artifact(
            name="coreml",
            suffix=".mlpackage",
            library="coreml",
            default=True,
            converter="to_coreml",
            made_with=("torch", "coremltools"),
            runtimes={"coreml-eval": "coreml-eval", "coreml": "coreml"},
            settings=_COREML_CPU,
        ),
        Artifact(
            name="coreml-image",
            suffix="-image.mlpackage",
            library="coreml",
            border=Border("float32", images=True),
            converter="to_coreml_image",
            made_with=("torch", "coremltools"),
            runtimes={"coreml-eval-image": "coreml-eval", "coreml-image": "coreml"},
            settings=_COREML_CPU,
        ),
        Artifact(
            name="coreml-ane",
            suffix="-ane.mlpackage",
            library="coreml",
            border=Border("float16"),
            exact=False,
            converter="to_coreml_ane",
            made_with=("torch", "coremltools"),
            runtimes={"coreml-eval-ane": "coreml-eval", "coreml-ane": "coreml"},
            settings={"computeUnits": "cpuAndNeuralEngine"},
        ),
        Artifact(
            name="executorch-coreml",
            suffix="-coreml.pte",
            library="executorch",
            exact=False,
            converter="to_executorch_coreml",
            made_with=("torch", "executorch", "coremltools"),
            runtimes={},
            settings={"backend": "CoreMLBackend"},
        ),
    )
}
"""By name, in the order in which they are shown."""

DEFAULT_TARGETS = tuple(row.name for row in ARTIFACTS.values() if row.default)


@dataclass(frozen=True)
class Runtime:
    """A way to run a bundle: an artifact of it in a library, or the function itself where `artifact` is None."""

    name: str
    library: str
    artifact: Artifact | None

    def runs_any(self, artifacts: Container[str]) -> bool:
        """Whether a bundle that has these artifacts has what it runs."""
        return self.artifact is None or self.artifact.name in artifacts

    @property
    def exact(self) -> bool:
        """Whether its codes have to be the golden ones."""
        return self.artifact is None or self.artifact.exact

    @property
    def checks(self) -> bool:
        """Whether it is the one that its artifact is checked in by default."""
        return self.artifact is None or next(iter(self.artifact.runtimes)) == self.name


RUNTIMES: Mapping[str, Runtime] = {
    "golden": Runtime("golden", "golden", None),
    **{name: Runtime(name, library, row) for row in ARTIFACTS.values() for name, library in row.runtimes.items()},
}
"""By the name that `--runtime` takes."""

DEVICE_RUNTIMES: Mapping[str, Runtime] = {
    name: runtime
    for name, runtime in RUNTIMES.items()
    if runtime.artifact is not None and LIBRARIES[runtime.library].on_devices
}
"""Those that devices can have."""


def check_targets(names: Sequence[str]) -> None:
    """Check the names of artifacts to make.

    Raises:
        InputError: there is none, or one is unknown.
    """
    if not names:
        raise InputError(f"no target was named: the targets are {', '.join(ARTIFACTS)}")
    if unknown := [name for name in names if name not in ARTIFACTS]:
        raise InputError(f"unknown target {unknown[0]!r}: the targets are {', '.join(ARTIFACTS)}")
