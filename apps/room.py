"""The results of every page that was opened: kept, written, and shown in the terminal as they come."""

from __future__ import annotations

import re
import sys
import threading
from collections.abc import Mapping, Sequence
from datetime import UTC, datetime
from pathlib import Path
from typing import TYPE_CHECKING

from litehrnet_stage2.apps import check_bundle, console

if TYPE_CHECKING:
    from rich.table import Table

    from litehrnet_stage2.runtime import ParityResult
    from litehrnet_stage2.runtime.latency import Result, Run
    from litehrnet_stage2.runtime.web import GoldenCodes, Model, Report, Visit


class Room:
    """Takes the reports of pages, one at a time.

    Args:
        codes: the golden ones.
        models: that pages are given.
        golden_sha256: of the bundle.
        weights: whose weights the models have.
        json: a file for all results together.
        folder: a folder for a file each.
    """

    def __init__(
        self,
        codes: GoldenCodes,
        models: Mapping[str, Model],
        *,
        golden_sha256: str,
        weights: str,
        json: Path | None,
        folder: Path | None,
    ) -> None:
        self.came = threading.Event()
        self.failure: OSError | None = None
        self.runs: list[Run] = []
        self.checked: list[list[ParityResult]] = []
        self._codes = codes
        self._models = models
        self._golden_sha256 = golden_sha256
        self._weights = weights
        self._json = json
        self._folder = folder

    @property
    def passed(self) -> bool:
        """Whether every code of every page was equal."""
        from litehrnet_stage2.runtime.web.answer import passed

        return all(passed(run, results) for run, results in zip(self.runs, self.checked, strict=True))

    def take(self, visit: Visit, report: Report) -> Mapping[str, object]:
        """Keep a page's report and write it; returns what the page is answered."""
        from litehrnet_stage2.runtime.web.answer import answer
        from litehrnet_stage2.runtime.web.browser_run import check, measured

        results = check(visit, self._codes, self._models)
        run = measured(visit, report, self._codes, self._models)
        self.checked.append(results)
        self.runs.append(run)
        try:
            self._write(run, report.device, visit.id)
        except OSError as error:  # the page is no place for it: whoever started the server is told
            self.failure = error
        self.came.set()
        return answer(run, results, report)

    def finish(self) -> None:
        """Write what goes to standard output, where that was asked for.

        Raises:
            OSError: a result could not be written.
        """
        if self.failure is not None:
            raise self.failure
        if self.runs and str(self._json) == "-":
            console.write_json(self._result(self.runs), self._json)

    def table(self) -> Table:
        """Every page so far, a line each."""
        numbers = ("codes off", "p50 ms", "95%")
        table = console.table("device", "browser", *numbers, "times", title=f"{len(self.runs)} results", right=numbers)
        for run, results in zip(self.runs, self.checked, strict=True):
            latency = next((c.latency for c in run.candidates if c.exact and c.latency), None)
            wrong = sum(output.mismatches for result in results for output in result.outputs.values())
            table.add_row(
                run.machine.device.removeprefix("web: "),
                run.machine.arch.removeprefix("WebAssembly in "),
                "[red]none[/]" if not results else f"[bold red]{wrong:,}[/]" if wrong else "[green]0[/]",
                f"{latency.p50_ms.value:.2f}" if latency else "",
                f"{latency.p50_ms.low:.2f}-{latency.p50_ms.high:.2f}" if latency else "",
                "" if latency is None else "[green]valid[/]" if run.validity.valid else "[red]not valid[/]",
            )
        return table

    def show(self) -> None:
        """Print one page in full, or the table of all."""
        if len(self.runs) != 1:
            console.out.print(self.table())
            return
        from litehrnet_stage2.apps.reporting import terminal

        run, results = self.runs[0], self.checked[0]
        if results:
            check_bundle.show(results)
        if any(c.latency or c.failure for c in run.candidates):
            terminal.show(run, console.out)

    def _write(self, run: Run, device: str, visit: str) -> None:
        if self._folder is not None:
            name = re.sub(r"[^a-z0-9]+", "-", device.lower()).strip("-") or "unnamed"
            console.write_json(self._result([run]), self._folder / f"{len(self.runs):03d}-{name}-{visit[:6]}.json")
        if self._json is not None and str(self._json) != "-":
            console.write_json(self._result(self.runs), self._json)

    def _result(self, runs: Sequence[Run]) -> Result:
        from litehrnet_stage2.runtime.latency import SCHEMA_VERSION, Result

        return Result(
            schema_version=SCHEMA_VERSION,
            created=datetime.now(UTC).isoformat(timespec="seconds"),
            command=" ".join(["stage2", *sys.argv[1:]]),
            tier="web",
            golden_sha256=self._golden_sha256,
            weights=self._weights,
            runs=tuple(runs),
        )
