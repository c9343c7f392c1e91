"""One table for a person's own metric: float, calibrated, tuned and every runtime."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from numpy.typing import NDArray
from torch import nn

from litehrnet_stage2.apps.evaluation import Outputs, Row, evaluate, to_markdown
from litehrnet_stage2.reference.config import Stage2Config
from litehrnet_stage2.reference.network import quantize
from litehrnet_stage2.reference.qat import QATStage2
from litehrnet_stage2.reference.stage2 import Stage2
from tests.conftest import SMALL


def brightest(answers: Iterable[tuple[Outputs, Any]]) -> dict[str, float]:
    """A person's metric: how often the brightest cell of Y1 lies in the row that the label says."""
    right = [y1.max(axis=(1, 3)).argmax(1) == label for (y1, _), label in answers]
    return {"hits": float(np.concatenate(right).mean()), "answers": float(len(np.concatenate(right)))}


@pytest.fixture
def batches(small_features: NDArray[np.float32]) -> list[tuple[NDArray[np.float32], NDArray[np.int64]]]:
    return [(small_features[i : i + 2], np.array([3, 5])) for i in (0, 2)]


def test_float_int8_and_the_runtimes_of_a_bundle_stand_in_one_table(
    trained: Callable[[Stage2Config], Stage2],
    small_bundle: Path,
    small_features: NDArray[np.float32],
    batches: list[tuple[NDArray[np.float32], NDArray[np.int64]]],
) -> None:
    network = trained(SMALL)
    calibrated = QATStage2.from_float(network).calibrate(torch.from_numpy(small_features))
    candidates = {"float": network, "int8": calibrated, "bundle": small_bundle}
    rows = {row.name: row for row in evaluate(candidates, batches, brightest)}
    assert list(rows) == ["float", "int8", "bundle, executorch", "bundle, onnxruntime"]
    assert all(row.figures["answers"] == 4 for row in rows.values())
    assert rows["float"].sqnr_db is None
    exact = rows["int8"]
    assert exact.sqnr_db is not None
    assert all(15 < value < 60 for value in exact.sqnr_db)
    for runtime in ("bundle, executorch", "bundle, onnxruntime"):
        assert (rows[runtime].figures, rows[runtime].sqnr_db) == (exact.figures, exact.sqnr_db)


def test_a_quantised_network_of_several_inputs_is_judged_beside_its_float_form() -> None:
    class Sum(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.left, self.right = nn.Conv2d(2, 3, 1), nn.Conv2d(1, 3, 1)

        def forward(self, a: torch.Tensor, b: torch.Tensor) -> dict[str, torch.Tensor]:
            return {"y": self.left(a) + self.right(b)}

    torch.manual_seed(0)
    network = Sum().eval()
    a, b = torch.randn(4, 2, 6, 8), torch.randn(4, 1, 6, 8)
    calibrated = quantize(network, (a, b)).calibrate(a, b)
    batches = [((a[i : i + 2].numpy(), b[i : i + 2].numpy()), None) for i in (0, 2)]
    rows = evaluate(
        {"float": network, "int8": calibrated}, batches, lambda answers: {"images": sum(len(y) for (y,), _ in answers)}
    )
    assert [row.figures for row in rows] == [{"images": 4}] * 2
    assert rows[1].sqnr_db is not None
    assert 30 < rows[1].sqnr_db[0] < 60


def test_whatever_can_be_called_is_a_candidate_and_the_ratio_is_of_the_first_inputs_alone() -> None:
    inputs = np.ones((4, 1, 2, 2), np.float32)

    def worse_later(x: NDArray[np.float32]) -> Outputs:
        return (np.where(np.arange(len(x))[:, None, None, None] < 1, x + 0.1, x + 100),)

    candidates = {"exact": lambda x: (x,), "worse": worse_later}
    rows = evaluate(candidates, [(inputs, None)], lambda answers: {"n": len(list(answers))}, sqnr_inputs=1)
    assert rows[1].sqnr_db == pytest.approx((20.0,), abs=1e-4)


def test_a_loader_that_can_be_gone_through_once_is_refused() -> None:
    with pytest.raises(ValueError, match="can be gone through once"):
        evaluate({"float": lambda x: (x,)}, iter([]), lambda _: {})
    with pytest.raises(ValueError, match="no candidate"):
        evaluate({}, [], lambda _: {})


def test_the_table_has_a_column_for_every_figure_in_its_own_format() -> None:
    rows = [Row("float", {"error": 0.22}, None), Row("int8", {"error": 0.25, "lost": 1.0}, (17.0, 18.5))]
    assert to_markdown(rows, {"error": "{:.3f} px"}).splitlines() == [
        "| network | SQNR 1 | SQNR 2 | error | lost |",
        "| --- | --- | --- | --- | --- |",
        "| float |  |  | 0.220 px |  |",
        "| int8 | 17.00 dB | 18.50 dB | 0.250 px | 1 |",
    ]
