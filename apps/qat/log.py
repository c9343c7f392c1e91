"""Shows how a run goes: a progress bar, a CSV, TensorBoard events and a plot."""

from __future__ import annotations

import csv
import math
from collections.abc import Mapping
from pathlib import Path
from types import TracebackType

from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn

COLUMNS = ("step", "loss", "sqnr_y1_db", "sqnr_y2_db", "learning_rate", "gradient_norm", "samples_per_s")


class RunLog:
    """Takes one row a step. On resume, the CSV loses its rows from `first_step` on."""

    def __init__(self, folder: Path, *, steps: int, first_step: int, console: Console) -> None:
        from torch.utils.tensorboard import SummaryWriter

        self._path = folder / "metrics.csv"
        kept = [row for row in read_rows(self._path) if row["step"] < first_step] if first_step else []
        self._file = self._path.open("w", newline="")
        self._csv = csv.DictWriter(self._file, COLUMNS)
        self._csv.writeheader()
        self._csv.writerows(_printable(row) for row in kept)
        self._events = SummaryWriter(str(folder / "tensorboard"), purge_step=first_step)
        self._bar = Progress(
            TextColumn("qat"),
            BarColumn(),
            MofNCompleteColumn(),
            TextColumn("loss {task.fields[loss]:.4g}  Y1 {task.fields[y1]:.1f} dB  Y2 {task.fields[y2]:.1f} dB"),
            TextColumn("{task.fields[rate]:.1f} samples/s"),
            TimeRemainingColumn(),
            console=console,
        )
        nothing = math.nan
        self._task = self._bar.add_task(
            "qat", total=steps, completed=first_step, loss=nothing, y1=nothing, y2=nothing, rate=nothing
        )

    def __enter__(self) -> RunLog:
        self._bar.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, value: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._bar.stop()
        self._events.close()
        self._file.close()

    def add(self, row: Mapping[str, float]) -> None:
        """Record one step: a value for each of `COLUMNS`."""
        self._csv.writerow(_printable(row))
        self._file.flush()
        for name in COLUMNS[1:]:
            self._events.add_scalar(name, row[name], int(row["step"]))
        self._bar.update(
            self._task,
            completed=int(row["step"]) + 1,
            loss=row["loss"],
            y1=row["sqnr_y1_db"],
            y2=row["sqnr_y2_db"],
            rate=row["samples_per_s"],
        )


def read_rows(path: Path) -> list[dict[str, float]]:
    """The rows of a `metrics.csv`; a last line cut short by a kill is dropped."""
    if not path.exists():
        return []
    with path.open(newline="") as file:
        rows = list(csv.DictReader(file))
    return [{k: float(v) for k, v in row.items()} for row in rows if all(row.get(c) for c in COLUMNS)]


def plot(csv_path: Path, png_path: Path) -> None:
    """Loss and SQNR of each output over the steps."""
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.figure import Figure

    rows = read_rows(csv_path)
    steps = [row["step"] for row in rows]
    figure = Figure(figsize=(8, 6), layout="constrained")
    upper, lower = figure.subplots(2, 1, sharex=True)
    upper.semilogy(steps, [row["loss"] for row in rows])
    upper.set_ylabel("loss")
    lower.plot(steps, [row["sqnr_y1_db"] for row in rows], label="Y1")
    lower.plot(steps, [row["sqnr_y2_db"] for row in rows], label="Y2")
    lower.set_ylabel("SQNR against the teacher (dB)")
    lower.set_xlabel("step")
    lower.legend()
    FigureCanvasAgg(figure).print_png(png_path)


def _printable(row: Mapping[str, float]) -> dict[str, str]:
    return {name: str(int(row[name])) if name == "step" else f"{row[name]:.6g}" for name in COLUMNS}
