"""Many pages at once: every code is compared, none is lost, and none is taken for another's."""

from __future__ import annotations

import http.client
import json
import re
import secrets
import threading
from collections.abc import Iterator, Mapping
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import numpy as np
import pytest

from litehrnet_stage2.runtime.bundle import Bundle
from litehrnet_stage2.runtime.parity import ParityResult
from litehrnet_stage2.runtime.web import GoldenCodes, Model, PagePlan, Visits, WebServer, visits
from litehrnet_stage2.runtime.web.browser_run import check
from litehrnet_stage2.runtime.web.protocol import REPORT_BYTES, ProtocolError, Report, job, printable, read_report
from litehrnet_stage2.runtime.web.visits import Visit

TOKEN = secrets.token_urlsafe(16)
MODELS = {
    name: Model(
        name=name, file_name="stage2.onnx", content=b"onnx", sha256="0" * 64, exact=exact, description="a model"
    )
    for name, exact in (("web", True), ("web-fp32", False))
}
PAGES = 50


def report(**changes: Any) -> dict[str, Any]:
    """What a page reports after a check without times."""
    model = {"load_ms": 10.0, "first_ms": 20, "warmup_queries": 0, "steady": False, "turns": []}
    return {
        "device": "phone",
        "cores": 8,
        "isolated": False,
        "clock_step_ms": 0.1,
        "hidden": False,
        "timed": False,
        "models": {name: dict(model) for name in MODELS},
        "failure": None,
        **changes,
    }


class Room:
    """A server of visits, and what was reported to it."""

    def __init__(self, codes: GoldenCodes) -> None:
        self.codes = codes
        self.results: dict[str, list[ParityResult]] = {}
        self.visits = Visits(codes, MODELS, self.take)
        self.server = WebServer(("127.0.0.1", 0), token=TOKEN, files={}, route=self.visits.route)
        threading.Thread(target=self.server.serve_forever, args=(0.05,), daemon=True).start()

    def take(self, visit: Visit, found: Report) -> Mapping[str, object]:
        assert found.device not in self.results
        self.results[found.device] = check(visit, self.codes, MODELS)
        return {"heard": found.device}

    def post(self, path: str, body: bytes = b"") -> tuple[int, dict[str, Any]]:
        connection = http.client.HTTPConnection("127.0.0.1", self.server.port, timeout=60)
        connection.request("POST", f"/{TOKEN}/{path}", body)
        response = connection.getresponse()
        content = response.read()
        connection.close()
        return response.status, json.loads(content) if content else {}

    def begin(self) -> str:
        status, answer = self.post("visits")
        assert status == 200
        return str(answer["visit"])

    def answer(self, index: int, wrong: int = 0) -> bytes:
        """The golden codes for one input, the first `wrong` of them off by one step."""
        found = np.concatenate([codes[index].ravel() for codes in self.codes.wanted])
        found[:wrong] ^= 1
        return found.tobytes()

    def send(self, visit: str, *, wrong: int = 0, model: str = "web", which: str = "before") -> int:
        """The codes for every input: how many differ, as the server counts."""
        counted = 0
        for index in range(self.codes.images):
            status, said = self.post(f"visits/{visit}/codes/{which}/{model}/{index}", self.answer(index, wrong))
            assert status == 200
            counted += said["mismatches"]
        return counted

    def result(self, visit: str, **changes: Any) -> tuple[int, dict[str, Any]]:
        return self.post(f"visits/{visit}/result", json.dumps(report(**changes)).encode())


@pytest.fixture(scope="module")
def codes(small_bundle) -> GoldenCodes:
    return GoldenCodes.of(Bundle.open(small_bundle))


@pytest.fixture
def room(codes: GoldenCodes) -> Iterator[Room]:
    made = Room(codes)
    yield made
    made.server.shutdown()
    made.server.server_close()


def test_of_fifty_pages_at_once_none_is_lost_and_none_mixed_up(room: Room) -> None:
    together = threading.Barrier(PAGES)

    def page(number: int) -> None:
        visit = room.begin()
        together.wait(timeout=60)
        assert room.send(visit, wrong=number) == number * room.codes.images
        room.send(visit, wrong=3, model="web-fp32")
        assert room.result(visit, device=f"phone {number}") == (200, {"heard": f"phone {number}"})

    with ThreadPoolExecutor(PAGES) as pool:
        list(pool.map(page, range(PAGES), timeout=120))
    assert set(room.results) == {f"phone {number}" for number in range(PAGES)}
    for number in range(PAGES):
        (found,) = room.results[f"phone {number}"]
        assert sum(output.mismatches for output in found.outputs.values()) == number * room.codes.images
        assert found.passed == (number == 0)
        assert (found.codes_sha256 == found.golden_sha256) == (number == 0)


def test_golden_codes_are_never_sent(codes: GoldenCodes) -> None:
    from litehrnet_stage2.runtime.web import site_files

    files = site_files({"index.html": b""}, "bundle", codes, MODELS, PagePlan())
    sent = b"".join(file.content for file in files.values())
    for wanted in codes.wanted:
        for image in wanted:
            if len(np.unique(image)) > 4:  # a saturated input gives a flat output, of which others have pieces
                assert image.tobytes()[:64] not in sent
    said = json.loads(job("bundle", codes, MODELS, PagePlan()))
    assert set(said) == {"title", "images", "inputs", "outputs", "models", "plan", "landmarks"}


def test_every_code_has_to_come_before_a_report_counts(room: Room) -> None:
    visit = room.begin()
    room.send(visit)
    status, said = room.result(visit)
    assert status == 400
    assert said["error"] == f"the codes of 0 of {room.codes.images} inputs came from web-fp32 before the timing"
    room.send(visit, model="web-fp32")
    assert room.result(visit, timed=True)[0] == 400  # nothing came after the timing
    assert room.result(visit)[0] == 200
    assert room.result(visit)[0] == 404  # a visit has one result


def test_a_page_that_could_not_go_on_says_why(room: Room) -> None:
    visit = room.begin()
    assert room.result(visit, models={}, failure="out of memory")[0] == 200
    assert room.results["phone"] == []


@pytest.mark.parametrize(
    "path",
    [
        "visits/",
        "visits/{other}/result",
        "visits/{visit}",
        "visits/{visit}/results",
        "visits/{visit}/codes/before/web",
        "visits/{visit}/codes/between/web/0",
        "visits/{visit}/codes/before/other/0",
        "visits/{visit}/codes/before/web/999999",
        "visits/{visit}/codes/before/web/-1",
        "visits/{visit}/codes/before/web/\u0664",
        "visits/../visits/{visit}/result",
        "visits/{visit}/codes/before/../before/web/0",
    ],
)
def test_there_is_nowhere_else_to_post_to(room: Room, path: str) -> None:
    visit = room.begin()
    assert room.visits.route(path.format(visit=visit, other="a" * 16)) is None


def test_bodies_have_the_size_of_what_they_hold(room: Room) -> None:
    visit = room.begin()
    post = room.visits.route(f"visits/{visit}/codes/before/web/0")
    assert post is not None
    assert post.least == post.most == sum(codes[0].size for codes in room.codes.wanted)
    post = room.visits.route(f"visits/{visit}/result")
    assert post is not None
    assert post.most == REPORT_BYTES
    post = room.visits.route("visits")
    assert post is not None
    assert post.most == 0


def test_open_pages_are_bounded_and_abandoned_ones_make_room(room: Room, monkeypatch: pytest.MonkeyPatch) -> None:
    for _ in range(visits.OPEN):
        room.begin()
    assert room.post("visits")[0] == 503
    monkeypatch.setattr(visits, "ABANDONED_S", 0.0)
    assert room.post("visits")[0] == 200


@pytest.mark.parametrize(
    "changes",
    [
        {"device": 3},
        {"cores": "8"},
        {"cores": True},
        {"cores": -1},
        {"clock_step_ms": float("nan")},
        {"clock_step_ms": float("inf")},
        {"clock_step_ms": -1.0},
        {"clock_step_ms": "1"},
        {"hidden": 1},
        {"timed": None},
        {"models": []},
        {"models": {"other": report()["models"]["web"]}},
        {"models": {"web": report()["models"]["web"]}},
        {"models": {"web": {}, "web-fp32": {}}},
        {"models": {name: {**report()["models"]["web"], "turns": [[10_001, 300.0]]} for name in MODELS}},
        {"models": {name: {**report()["models"]["web"], "turns": [[1, 0.5]]} for name in MODELS}},
        {"models": {name: {**report()["models"]["web"], "turns": [[1, 1.0]] * 1001} for name in MODELS}},
        {"models": {name: {**report()["models"]["web"], "turns": [[1, 2, 3]]} for name in MODELS}},
        {"models": {name: {**report()["models"]["web"], "turns": "x"} for name in MODELS}},
        {
            "timed": True,
            "models": {
                name: {**report()["models"]["web"], "turns": [[1, 300.0]] * (1 + i)} for i, name in enumerate(MODELS)
            },
        },
    ],
)
def test_numbers_that_cannot_be_are_no_report(changes: dict[str, Any]) -> None:
    with pytest.raises(ProtocolError):
        read_report(json.dumps(report(**changes)).encode(), MODELS)


@pytest.mark.parametrize("body", [b"", b"[]", b"null", b"\xff", b"{}", b"[" * 60000, b'{"models": 1e999}'])
def test_what_is_no_report_is_none(body: bytes) -> None:
    with pytest.raises(ProtocolError):
        read_report(body, MODELS)


def test_a_name_can_do_nothing_to_a_terminal_or_a_file() -> None:
    named = read_report(json.dumps(report(device="\x1b[31mPixel\n\n  8\u202e" + "x" * 1000)).encode(), MODELS).device
    assert re.fullmatch(r"\(31mPixel 8 x{48}", named), named
    assert printable("[/bold] [link=x]y", 60) == "(/bold) (link=x)y"
    assert printable("\x00", 10) == ""
