"""The pages that are open, each with its own codes and result: any number in a room, none mixed up with another."""

from __future__ import annotations

import json
import re
import secrets
import threading
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from http import HTTPStatus

from litehrnet_stage2.reference.quantization import Codes
from litehrnet_stage2.runtime.parity import OutputParity
from litehrnet_stage2.runtime.web.golden_codes import GoldenCodes
from litehrnet_stage2.runtime.web.protocol import REPORT_BYTES, Model, ProtocolError, Report, printable, read_report
from litehrnet_stage2.runtime.web.server import Post, Response

PASSES = ("before", "after")
"""Codes are sent before the timing, and again after it."""

OPEN = 64
ABANDONED_S = 900.0

_PATHS = re.compile(r"visits(?:/([\w-]{16,32})/(?:(result)|codes/(before|after)/([\w.-]{1,40})/(\d{1,6})))?", re.ASCII)


@dataclass
class Visit:
    """One page.

    Attributes:
        user_agent: as the browser sent it, printable.
        compared: by pass and model, what was found for each input.
        differing: by model, the codes of the first pass where they are not the golden ones.
    """

    id: str
    user_agent: str
    seen: float
    compared: dict[tuple[str, str], dict[int, tuple[OutputParity, ...]]] = field(default_factory=dict)
    differing: dict[str, dict[int, tuple[Codes, ...]]] = field(default_factory=dict)
    lock: threading.Lock = field(default_factory=threading.Lock)


class Visits:
    """What pages post, and where.

    Args:
        codes: the golden ones.
        models: by name.
        on_report: is told of each report, one at a time, and returns what the page is answered.
    """

    def __init__(
        self,
        codes: GoldenCodes,
        models: Mapping[str, Model],
        on_report: Callable[[Visit, Report], Mapping[str, object]],
    ) -> None:
        self._codes = codes
        self._models = models
        self._on_report = on_report
        self._open: dict[str, Visit] = {}
        self._lock = threading.Lock()
        self._reporting = threading.Lock()

    def route(self, path: str) -> Post | None:
        """The place that a path names: `visits`, or of a visit `codes/<pass>/<model>/<input>` or `result`."""
        found = _PATHS.fullmatch(path)
        if found is None:
            return None
        name, result, which, model, index = found.groups()
        if name is None:
            return Post(0, 0, lambda _, agent: self._begin(agent))
        with self._lock:
            visit = self._open.get(name)
        if visit is None:
            return None
        if result:
            return Post(REPORT_BYTES, 2, lambda body, _: self._report(visit, body))
        if model not in self._models or int(index) >= self._codes.images:
            return None
        size = self._codes.answer_bytes
        return Post(size, size, lambda body, _: self._compare(visit, which, model, int(index), body))

    def _begin(self, user_agent: str) -> Response:
        now = time.monotonic()
        visit = Visit(secrets.token_urlsafe(12), printable(user_agent, 300), now)
        with self._lock:
            self._open = {name: one for name, one in self._open.items() if now - one.seen < ABANDONED_S}
            if len(self._open) >= OPEN:
                return Response(HTTPStatus.SERVICE_UNAVAILABLE)
            self._open[visit.id] = visit
        return _json({"visit": visit.id})

    def _compare(self, visit: Visit, which: str, model: str, index: int, body: bytes) -> Response:
        found = self._codes.split(body)
        compared = self._codes.compare_one(index, found)
        mismatches = sum(output.mismatches for output in compared)
        with visit.lock:
            visit.seen = time.monotonic()
            visit.compared.setdefault((which, model), {})[index] = compared
            if which == "before" and self._models[model].exact:
                kept = visit.differing.setdefault(model, {})
                kept.pop(index, None)
                if mismatches:
                    kept[index] = found
        return _json({"mismatches": mismatches})

    def _report(self, visit: Visit, body: bytes) -> Response:
        try:
            report = read_report(body, self._models)
            self._check_complete(visit, report)
        except ProtocolError as error:
            return _json({"error": str(error)}, HTTPStatus.BAD_REQUEST)
        with self._reporting:
            with self._lock:
                if self._open.pop(visit.id, None) is None:
                    return Response(HTTPStatus.NOT_FOUND)
            return _json(self._on_report(visit, report))

    def _check_complete(self, visit: Visit, report: Report) -> None:
        if report.failure is not None:
            return
        for which in PASSES if report.timed else PASSES[:1]:
            for name in self._models:
                found = len(visit.compared.get((which, name), ()))
                if found != self._codes.images:
                    raise ProtocolError(
                        f"the codes of {found} of {self._codes.images} inputs came from {name} {which} the timing"
                    )


def _json(values: Mapping[str, object], status: HTTPStatus = HTTPStatus.OK) -> Response:
    return Response(status, json.dumps(values).encode())
