"""The shipped weights do on held-out photographs what their card says, in float and as the integer function."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest

from litehrnet_stage2.apps.evaluation import evaluate
from litehrnet_stage2.apps.landmarks.landmark_net import answers
from litehrnet_stage2.apps.landmarks.metrics import task_metrics
from litehrnet_stage2.apps.landmarks.pool import TEST_SEED, Pool, batches, rendered
from litehrnet_stage2.apps.landmarks.task_report import StemBatches, compare, through_heads, write_report
from litehrnet_stage2.apps.landmarks.weight_files import SHIPPED, load_network, load_stem_and_heads
from litehrnet_stage2.reference.checkpoint import load_checkpoint
from litehrnet_stage2.reference.freeze import freeze
from litehrnet_stage2.reference.qat import QATStage2


@pytest.fixture(scope="module")
def held_out(tmp_path_factory: pytest.TempPathFactory) -> Pool:
    return rendered("test", count=40, seed=TEST_SEED, folder=tmp_path_factory.mktemp("pool"))


def test_the_float_weights_find_the_marker_among_decoys(held_out: Pool) -> None:
    metrics = task_metrics(answers(load_network(SHIPPED), batches(held_out, batch=10)))
    assert metrics.detection >= 0.9
    assert metrics.within_2px >= 0.85
    assert metrics.error_p95_px <= 2.0
    assert metrics.decoy_accuracy >= 0.85


def test_the_int8_weights_freeze_and_find_the_centres_that_float_finds(held_out: Pool) -> None:
    few = Pool(held_out.images[:16], held_out.shapes[:16])
    student = load_checkpoint(SHIPPED / "int8.safetensors")
    assert isinstance(student, QATStage2)
    stem, heads = load_stem_and_heads(SHIPPED / "landmarks.safetensors")
    features = next(iter(StemBatches(stem, few)))[0]
    _, proof = freeze(student, features.shape)
    assert proof.nodes == {"Conv": 20, "SiLU": 16, "Add": 6, "Resize": 1}
    networks = {"float": load_checkpoint(SHIPPED / "float.safetensors"), "int8": student}
    floating, int8 = (row.figures for row in evaluate(networks, StemBatches(stem, few), through_heads(heads)))
    assert abs(int8["detection"] - floating["detection"]) <= 1 / 16
    assert abs(int8["error_mean_px"] - floating["error_mean_px"]) < 0.15


def test_a_file_that_holds_no_stem_and_heads_is_refused(tmp_path: Path) -> None:
    np.save(tmp_path / "x.npy", np.zeros(3))
    for path in (tmp_path / "x.npy", tmp_path / "missing", SHIPPED / "float.safetensors"):
        with pytest.raises(ValueError, match="does not hold a stem and heads"):
            load_stem_and_heads(path)


def test_the_report_compares_float_with_int8_and_the_runtimes_repeat_the_golden_figures(tmp_path: Path) -> None:
    report = compare(SHIPPED, cache=tmp_path / "pool", scenes=6, runtimes=["onnxruntime"])
    rows = {row.name: row for row in report.rows}
    assert next(iter(rows)) == "float"
    assert rows["QAT bundle, onnxruntime"].figures == rows["int8, QAT"].figures
    assert rows["QAT bundle, onnxruntime"].sqnr_db == rows["int8, QAT"].sqnr_db
    plain, tuned = rows["int8, post-training"].sqnr_db, rows["int8, QAT"].sqnr_db
    assert plain is not None
    assert tuned is not None
    assert sum(tuned) > sum(plain)

    whole = {row.name: row for row in report.whole_rows}
    assert whole["QAT bundle, onnxruntime"].figures == whole["int8, QAT"].figures
    assert whole["QAT bundle, onnxruntime"].sqnr_db == whole["int8, QAT"].sqnr_db
    plain, tuned = whole["int8, post-training"].sqnr_db, whole["int8, QAT"].sqnr_db
    assert plain is not None
    assert tuned is not None
    assert all(after > before for before, after in zip(plain, tuned, strict=True))

    write_report(report, tmp_path / "qat.json")
    table = [line for line in (tmp_path / "qat.md").read_text().splitlines() if line.startswith("|")]
    assert len(table) == 2 + len(rows) + 2 + len(whole)
    assert len(json.loads((tmp_path / "qat.json").read_text())["rows"]) == len(rows)
