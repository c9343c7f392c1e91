"""Shows how a run goes: a progress bar, a CSV, TensorBoard events and a plot."""

from __future__ import annotations

import csv
import math
from collections.abc import Mapping, Sequence
from pathlib import Path
from types import TracebackType

from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn


def columns(outputs: Sequence[str]) -> tuple[str, ...]:
    """Of `metrics.csv`, for a network with these outputs."""
    return ("step", "loss", *(f"sqnr_{name}_db" for name in outputs), "learning_rate", "gradient_norm", "samples_per_s")


class RunLog:
    """Takes one row a step. On resume, the CSV loses its rows from `first_step` on."""

    def __init__(self, folder: Path, outputs: Sequence[str], *, steps: int, first_step: int, console: Console) -> None:
        from torch.utils.tensorboard import SummaryWriter

        self._outputs, self._columns = tuple(outputs), columns(outputs)
        self._path = folder / "metrics.csv"
        kept = [row for row in read_rows(self._path) if row["step"] < first_step] if first_step else []
        self._file = self._path.open("w", newline="")
        self._csv = csv.DictWriter(self._file, self._columns)
        self._csv.writeheader()
        self._csv.writerows(_printable(row) for row in kept)
        self._events = SummaryWriter(str(folder / "tensorboard"), purge_step=first_step)
        self._bar = Progress(
            TextColumn("qat"),
            BarColumn(),
            MofNCompleteColumn(),
            TextColumn("loss {task.fields[loss]:.4g}  {task.fields[ratios]}"),
            TextColumn("{task.fields[rate]:.1f} samples/s"),
            TimeRemainingColumn(),
            console=console,
        )
        nothing = math.nan
        self._task = self._bar.add_task("qat", total=steps, completed=first_step, loss=nothing, ratios="", rate=nothing)

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
        """Record one step: a value for each of `columns`."""
        self._csv.writerow(_printable(row))
        self._file.flush()
        for name in self._columns[1:]:
            self._events.add_scalar(name, row[name], int(row["step"]))
        self._bar.update(
            self._task,
            completed=int(row["step"]) + 1,
            loss=row["loss"],
            ratios="  ".join(f"{name} {row[f'sqnr_{name}_db']:.1f} dB" for name in self._outputs),
            rate=row["samples_per_s"],
        )


def read_rows(path: Path) -> list[dict[str, float]]:
    """The rows of a `metrics.csv`; a last line cut short by a kill is dropped."""
    if not path.exists():
        return []
    with path.open(newline="") as file:
        reader = csv.DictReader(file)
        rows = list(reader)
    return [{k: float(v) for k, v in row.items()} for row in rows if all(row.get(c) for c in reader.fieldnames or ())]


def plot(csv_path: Path, png_path: Path, outputs: Sequence[str]) -> None:
    """Loss and SQNR of each output over the steps."""
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.figure import Figure

    rows = read_rows(csv_path)
    steps = [row["step"] for row in rows]
    figure = Figure(figsize=(8, 6), layout="constrained")
    upper, lower = figure.subplots(2, 1, sharex=True)
    upper.semilogy(steps, [row["loss"] for row in rows])
    upper.set_ylabel("loss")
    for name in outputs:
        lower.plot(steps, [row[f"sqnr_{name}_db"] for row in rows], label=name)
    lower.set_ylabel("SQNR against the teacher (dB)")
    lower.set_xlabel("step")
    lower.legend()
    FigureCanvasAgg(figure).print_png(png_path)


def _printable(row: Mapping[str, float]) -> dict[str, str]:
    return {name: str(int(value)) if name == "step" else f"{value:.6g}" for name, value in row.items()}
