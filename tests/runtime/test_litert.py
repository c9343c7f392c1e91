"""LiteRT runs a bundle's `.tflite` with XNNPACK for all of it, or not at all."""

from __future__ import annotations

import functools
from pathlib import Path

import numpy as np
import pytest
from ai_edge_litert import interpreter

from litehrnet_stage2.reference.upstream import litert_2
from litehrnet_stage2.runtime import Bundle, OutputError, RuntimeUnavailableError, open_session
from litehrnet_stage2.runtime.devices import RunnerError
from litehrnet_stage2.runtime.devices.device import local_device
from litehrnet_stage2.runtime.program import Names, open_program
from litehrnet_stage2.runtime.programs.device_program import open_device_session

RUNTIMES = ("litert", "litert-codes")


@pytest.mark.parametrize("runtime", RUNTIMES)
def test_an_interpreter_without_xnnpack_is_refused_in_one_sentence(
    runtime: str, codes_bundle: Bundle, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The same file opens with the delegate, and without it gives other codes."""
    assert open_session(codes_bundle, runtime).info.runtime == runtime
    without = interpreter.OpResolverType.BUILTIN_WITHOUT_DEFAULT_DELEGATES
    bare = functools.partial(interpreter.Interpreter, experimental_op_resolver_type=without)
    monkeypatch.setattr(interpreter, "Interpreter", bare)
    with pytest.raises(RuntimeUnavailableError, match="does not compute the function: XNNPACK runs it in 0"):
        open_session(codes_bundle, runtime)


def test_a_file_that_xnnpack_takes_in_part_is_refused(codes_bundle: Bundle, monkeypatch: pytest.MonkeyPatch) -> None:
    """With one operator outside of the delegate, as LiteRT would tell."""
    whole = litert_2.operators_of

    def with_one_more(opened: interpreter.Interpreter) -> list[dict[str, object]]:
        operators = whole(opened)
        delegate = operators[-1]
        return [*operators[:-1], {**delegate, "outputs": [*delegate["outputs"], 3]}]

    monkeypatch.setattr(litert_2, "operators_of", with_one_more)
    with pytest.raises(RuntimeUnavailableError, match="some operators are outside of XNNPACK's delegate"):
        open_session(codes_bundle, "litert-codes")


def test_a_device_refuses_it_too(codes_bundle: Bundle, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A Python there whose interpreter has no delegate: `sitecustomize` takes it away."""
    (tmp_path / "sitecustomize.py").write_text(
        "import functools\n"
        "from ai_edge_litert import interpreter as i\n"
        "without = i.OpResolverType.BUILTIN_WITHOUT_DEFAULT_DELEGATES\n"
        "i.Interpreter = functools.partial(i.Interpreter, experimental_op_resolver_type=without)\n"
    )
    monkeypatch.setenv("PYTHONPATH", str(tmp_path))
    with (
        local_device() as device,
        open_device_session(codes_bundle, "litert-codes", device) as session,
        pytest.raises(RunnerError, match="cannot be loaded: XNNPACK runs it in 0 delegates") as caught,
    ):
        session.run(codes_bundle.golden().x[:1])
    assert caught.value.kind == "model"


def test_inputs_and_outputs_are_told_by_their_names(codes_bundle: Bundle) -> None:
    content = codes_bundle.read(codes_bundle.artifact("litert-codes"))
    x = np.zeros((1, 16, 24, 4), np.int8)
    orders = (("y1", "y2"), ("y2", "y1"))
    (a, b), (c, d) = (
        open_program("litert", content, threads=1, exact=True, names=Names(("features",), order)).run((x,))
        for order in orders
    )
    assert (a == d).all()
    assert (b == c).all()
    with pytest.raises(OutputError, match="maps features to y1, y2, not features to y1"):
        open_program("litert", content, threads=1, exact=True, names=Names(("features",), ("y1",)))
