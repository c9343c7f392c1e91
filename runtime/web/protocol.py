"""What a page is given as `job.json`, and what it reports back: nothing in a report is believed unchecked."""

from __future__ import annotations

import json
import math
import re
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from litehrnet_stage2.reference.contract.artifacts import Layout
from litehrnet_stage2.reference.contract.manifest import TensorSpec
from litehrnet_stage2.reference.errors import InputError
from litehrnet_stage2.runtime.web.golden_codes import GoldenCodes

REPORT_BYTES = 64 * 1024
NAME_CHARACTERS = 60
FAILURE_CHARACTERS = 300
LANDMARK_OUTPUTS = {"heat", "offset", "real"}
MOST_TURNS = 1000
MOST_QUERIES = 10_000  # of a turn, which is a millisecond at least
MOST_MS = 3.6e6


class ProtocolError(InputError):
    """A page sent something that is no report."""


@dataclass(frozen=True, kw_only=True)
class Model:
    """A `.onnx` that a page is given.

    Attributes:
        name: in results and paths.
        file_name: the file's, in its bundle or as the baseline's builder called it.
        exact: it has to give the golden codes.
        layout: of its inputs and outputs.
    """

    name: str
    file_name: str
    content: bytes
    sha256: str
    exact: bool
    description: str
    layout: Layout = "NCHW"


@dataclass(frozen=True, kw_only=True)
class PagePlan:
    """How a page takes times.

    Attributes:
        turn_ms: least length of a turn, in which one model runs again and again.
        turns: of each model; they alternate.
        warmup_queries: least, before the first turn.
        steady: two windows of that many queries differ by no more than this share.
        warmup_ms: after so long it goes on, and says that it was not steady.
    """

    turn_ms: float = 300.0
    turns: int = 32
    warmup_queries: int = 10
    steady: float = 0.02
    warmup_ms: float = 20_000.0


@dataclass(frozen=True)
class Turn:
    """Queries without a pause, and how long they took together."""

    queries: int
    ms: float


@dataclass(frozen=True, kw_only=True)
class ModelTimes:
    """One model: its loading and first run, and where it was timed its warm-up and turns."""

    load_ms: float
    first_ms: float
    warmup_queries: int = 0
    steady: bool = False
    turns: tuple[Turn, ...] = ()


@dataclass(frozen=True, kw_only=True)
class Report:
    """What a page says of itself.

    Attributes:
        device: as it was typed, at most 60 printable characters.
        cores: that the browser claims.
        clock_step_ms: the smallest step of its clock that was seen.
        hidden: whether the page was out of sight while it took times.
        timed: whether it took times.
        models: by name.
        failure: why it could not go on.
    """

    device: str
    cores: int
    isolated: bool
    clock_step_ms: float
    hidden: bool
    timed: bool
    models: Mapping[str, ModelTimes]
    failure: str | None


def job(title: str, codes: GoldenCodes, models: Mapping[str, Model], plan: PagePlan) -> bytes:
    """`job.json`: what the page has to know of the bundle."""
    values = {
        "title": title,
        "images": codes.images,
        "inputs": [_tensor(spec) for spec in codes.inputs],
        "outputs": [_tensor(spec) for spec in codes.outputs],
        "models": [
            {
                "name": model.name,
                "description": model.description,
                "exact": model.exact,
                "layout": model.layout,
                "bytes": len(model.content),
            }
            for model in models.values()
        ],
        "plan": vars(plan),
        "landmarks": finds_landmarks(codes),
    }
    return json.dumps(values).encode()


def finds_landmarks(codes: GoldenCodes) -> bool:
    """Whether this is the landmark network, from pixels to its three heads: then a photograph can be shown to it."""
    names = {spec.name for spec in codes.outputs}
    return names == LANDMARK_OUTPUTS and [(spec.name, spec.kind) for spec in codes.inputs] == [("image", "pixels")]


def read_report(body: bytes, models: Mapping[str, Model]) -> Report:
    """A page's report.

    Raises:
        ProtocolError: it is none, or holds numbers that cannot be.
    """
    try:
        values = json.loads(body)
        found = {str(name): _times(entry) for name, entry in dict(values["models"]).items()}
        report = Report(
            device=printable(values["device"], NAME_CHARACTERS),
            cores=_count(values["cores"], 4096),
            isolated=_flag(values["isolated"]),
            clock_step_ms=_number(values["clock_step_ms"]),
            hidden=_flag(values["hidden"]),
            timed=_flag(values["timed"]),
            models=found,
            failure=None if values["failure"] is None else printable(values["failure"], FAILURE_CHARACTERS),
        )
    except ProtocolError:
        raise
    except (ValueError, KeyError, TypeError, AttributeError, RecursionError) as error:
        raise ProtocolError(f"a page sent no report ({error!r})") from error
    if unknown := set(report.models) - set(models):
        raise ProtocolError(f"a page reported on the unknown model {sorted(unknown)[0]!r}")
    if report.failure is None and set(report.models) != set(models):
        raise ProtocolError("a page reported on some of the models")
    if report.timed and report.failure is None and len({len(times.turns) for times in report.models.values()}) != 1:
        raise ProtocolError("a page reported different numbers of turns")
    return report


def printable(text: object, most: int) -> str:
    """Text for a terminal and a file: printable characters alone, no markup, blanks joined, cut to `most`.

    Raises:
        ProtocolError: it is no text.
    """
    if not isinstance(text, str):
        raise ProtocolError(f"a page sent {type(text).__name__} where text belongs")
    kept = "".join(character if character.isprintable() else " " for character in text[: 10 * most])
    kept = kept.translate(str.maketrans("[]", "()"))  # Rich takes square brackets for markup
    return re.sub(r"\s+", " ", kept).strip()[:most]


def _tensor(spec: TensorSpec) -> dict[str, Any]:
    return {
        "name": spec.name,
        "shape": list(spec.shape),
        "scale": spec.scale,
        "zero_point": spec.zero_point,
        "kind": spec.kind,
    }


def _times(entry: Mapping[str, Any]) -> ModelTimes:
    turns = entry["turns"]
    if not isinstance(turns, list) or len(turns) > MOST_TURNS:
        raise ProtocolError("a page sent no list of turns, or too long a one")
    return ModelTimes(
        load_ms=_number(entry["load_ms"]),
        first_ms=_number(entry["first_ms"]),
        warmup_queries=_count(entry["warmup_queries"], 10**6),
        steady=_flag(entry["steady"]),
        turns=tuple(Turn(_count(queries, MOST_QUERIES, least=1), _number(ms, least=1.0)) for queries, ms in turns),
    )


def _flag(value: object) -> bool:
    if not isinstance(value, bool):
        raise ProtocolError(f"a page sent {value!r} where true or false belongs")
    return value


def _count(value: object, most: int, *, least: int = 0) -> int:
    if not isinstance(value, int) or isinstance(value, bool) or not least <= value <= most:
        raise ProtocolError(f"a page sent a count that is no whole number of {least} to {most}")
    return value


def _number(value: object, *, least: float = 0.0) -> float:
    if isinstance(value, bool) or not isinstance(value, (int, float)) or not math.isfinite(value):
        raise ProtocolError("a page sent something where a number belongs")
    if not least <= value <= MOST_MS:
        raise ProtocolError("a page sent a time that cannot be")
    return float(value)
