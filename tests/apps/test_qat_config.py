"""The knobs of `stage2 qat`: one documented file, checked values, overrides."""

from __future__ import annotations

import dataclasses
import os
import tomllib
from pathlib import Path

import pytest

from litehrnet_stage2.apps import qat
from litehrnet_stage2.apps.qat.qat_config import QatConfig, read_config
from litehrnet_stage2.reference.errors import InputError

DOCUMENTED = Path(qat.__path__[0]) / "qat.toml"


def test_the_documented_file_holds_every_knob_at_its_default() -> None:
    assert tomllib.loads(DOCUMENTED.read_text()) == dataclasses.asdict(QatConfig())
    assert read_config(DOCUMENTED) == read_config(None) == QatConfig()


def test_every_knob_in_the_documented_file_carries_a_comment() -> None:
    lines = [line for line in DOCUMENTED.read_text().splitlines() if "=" in line and not line.startswith("#")]
    assert len(lines) == len(dataclasses.fields(QatConfig))
    assert all("  # " in line or " # " in line for line in lines)


def test_overrides_win_over_the_file(tmp_path: Path) -> None:
    path = tmp_path / "mine.toml"
    path.write_text("steps = 7\nranges = 'learned'\n")
    config = read_config(path, ["steps=9", "schedule=constant", "learning_rate=1", "task='landmarks'"])
    assert (config.steps, config.ranges, config.schedule, config.task) == (9, "learned", "constant", "landmarks")
    assert config.learning_rate == 1.0


@pytest.mark.parametrize(
    ("override", "message"),
    [
        ("stepps=3", "unknown key 'stepps'.*task, seed, steps"),
        ("steps=0", r"`steps` \(=0\) must lie in \[1"),
        ("steps=1.5", r"`steps` \(=1.5\) must be of type int"),
        ("steps=true", r"`steps` \(=True\) must be of type int"),
        ("learning_rate=nan", r"`learning_rate` \(=nan\) must lie in"),
        ("ranges=guessed", r"`ranges` \(='guessed'\) must be one of fixed, learned"),
        ("crop_cells=7", r"`crop_cells` \(=7\) must be even"),
        ("held_out_maps=1", r"`held_out_maps` \(=1\) must lie in \[2"),
        ("steps", "must read key=value"),
    ],
)
def test_a_bad_value_is_refused_with_the_value_and_what_is_accepted(override: str, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        read_config(None, [override])


@pytest.mark.parametrize("content", [b"steps = = 3", b"\xff\xfe", b"steps = " + b"[" * 10_000])
def test_a_file_that_is_not_toml_is_named(content: bytes, tmp_path: Path) -> None:
    path = tmp_path / "broken.toml"
    path.write_bytes(content)
    with pytest.raises(InputError, match=r"broken\.toml is not valid TOML"):
        read_config(path)
    with pytest.raises(InputError, match=r"`steps` \(="):
        read_config(None, ["steps=" + "[" * 10_000])


def test_a_file_that_would_wait_or_has_no_end_is_refused_before_it_is_read(tmp_path: Path) -> None:
    os.mkfifo(tmp_path / "pipe.toml")
    for path in (tmp_path / "pipe.toml", Path("/dev/zero")):
        with pytest.raises(InputError, match=f"{path} is no regular file"):
            read_config(path)
