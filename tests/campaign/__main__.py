"""Runs the campaign: thousands of hostile files, each refused in one sentence or harmless, or it is a finding.

    python tests/campaign                  everything, minutes; writes the table of docs/security.md
    python tests/campaign --share 0.02     a sample, as `make test` takes it; writes nothing

Every victim is a function that makes cases from honest files; its cases run in a process that may use 2 GiB more than
it has when it begins. That process ending by a signal is a finding too.
"""

from __future__ import annotations

import argparse
import contextlib
import json
import os
import queue
import subprocess
import sys
import tempfile
import threading
import time
from collections import Counter
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

ROOT = Path(__file__).resolve().parent.parent.parent
sys.path.insert(0, str(ROOT))

from tests.campaign import judge, originals  # noqa: E402
from tests.campaign.judge import Verdict, Victim  # noqa: E402

PAGE = ROOT / "docs" / "security.md"
SEED = 20261125


@dataclass(frozen=True)
class Row:
    """A victim of the table: its module and function in `tests.campaign`, how many cases it gets, and for how long."""

    module: str
    function: str
    count: int
    most_s: float = 30.0

    def load(self) -> Victim:
        """The function; a victim imports what it attacks."""
        victim: Victim = getattr(__import__(f"tests.campaign.{self.module}", fromlist=["x"]), self.function)
        return victim


VICTIMS: Mapping[str, Row] = {
    "bundle, damaged": Row("bundles", "accidents", 500),
    "manifest, hash made good": Row("bundles", "manifests", 400, 120),
    "function, hash made good": Row("bundles", "functions", 300, 120),
    "golden codes, hash made good": Row("bundles", "goldens", 250),
    ".mlpackage, hashes made good": Row("bundles", "packages", 60, 180),
    ".onnx, hash made good": Row("bundles", "onnx", 60, 180),
    ".pte, hash made good": Row("bundles", "pte", 40, 180),
    "checkpoint, damaged": Row("checkpoints", "accidents", 300),
    "checkpoint, hash made good": Row("checkpoints", "hostile", 500),
    "network's checkpoint, hash made good": Row("checkpoints", "networks", 300),
    "checkpoint of a run": Row("checkpoints", "runs", 150),
    "features": Row("calibration", "files", 600),
    "benchmark result": Row("results", "files", 400),
    "device's reply": Row("devices", "replies", 400),
    "device's facts": Row("devices", "facts", 300),
    "device's transfers": Row("devices", "transfers", 60),
    "the command line": Row("commands", "all_of_them", 60, 300),
}


@dataclass
class Tally:
    """What became of a victim's cases."""

    outcomes: Counter[str] = field(default_factory=Counter)
    slowest_s: float = 0.0
    findings: list[Verdict] = field(default_factory=list)

    def add(self, verdict: Verdict) -> None:
        """Count one."""
        self.outcomes[verdict.outcome] += 1
        self.slowest_s = max(self.slowest_s, verdict.seconds)
        if verdict.outcome == "finding":
            self.findings.append(verdict)


def main() -> int:
    """Run what is asked for; 1 if there is a finding."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--share", type=float, default=1.0, help="of each victim's cases")
    parser.add_argument("--only", default="", help="victims whose name has this in it")
    parser.add_argument("--seed", type=int, default=SEED)
    parser.add_argument("--serve", nargs=5, help=argparse.SUPPRESS)
    flags = parser.parse_args()
    if flags.serve:
        serve(*flags.serve, seed=flags.seed)
        return 0
    tallies = {}
    with tempfile.TemporaryDirectory(prefix="campaign-") as temporary:
        folder = Path(temporary, "originals")
        folder.mkdir()
        os.environ["LITEHRNET_STAGE2_CACHE"] = str(Path(temporary, "cache"))
        originals.make(folder)
        for name, row in VICTIMS.items():
            if flags.only not in name:
                continue
            scratch = Path(temporary, row.module + row.function)
            scratch.mkdir()
            count = max(1, round(row.count * flags.share))
            tallies[name] = run(name, folder, scratch, count, flags.seed)
            print(line(name, tallies[name]), flush=True)
            for finding in tallies[name].findings[:5]:
                print(f"    {finding.what}: {finding.said}", flush=True)
    if flags.share == 1 and not flags.only:
        write_table(tallies)
    return 1 if any(tally.findings for tally in tallies.values()) else 0


def run(name: str, folder: Path, scratch: Path, count: int, seed: int) -> Tally:
    """Have a process judge `count` cases, and another one go on after each that ended it."""
    tally, begun = Tally(), 0
    while begun < count:
        words = [str(Path(__file__)), "--seed", str(seed), "--serve", name, folder, scratch, str(begun), str(count)]
        start, what = time.monotonic(), "at its beginning"
        with _lines([sys.executable, "-P", *map(str, words)], VICTIMS[name].most_s) as (process, lines):
            for said in lines:
                if "begins" in said:
                    what, start, begun = said["begins"], time.monotonic(), begun + 1
                else:
                    tally.add(Verdict(**said))
                    what = ""
        if what:
            how = f"its process ended with status {process.returncode}"
            tally.add(Verdict(what, "finding", how, time.monotonic() - start))
            if what == "at its beginning":
                break
    return tally


@contextlib.contextmanager
def _lines(words: list[str], most_s: float) -> Iterator[tuple[subprocess.Popen[str], Iterator[dict[str, Any]]]]:
    """A process and what it says, until it ends or says nothing for twice as long as a case may take."""
    with subprocess.Popen(words, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, text=True) as process:
        assert process.stdout is not None
        said: queue.Queue[str | None] = queue.Queue()
        reader = threading.Thread(target=lambda out: [*map(said.put, out), said.put(None)], args=(process.stdout,))
        reader.start()

        def lines() -> Iterator[dict[str, Any]]:
            with contextlib.suppress(queue.Empty):
                while (text := said.get(timeout=2 * most_s + 60)) is not None:
                    yield json.loads(text)

        try:
            yield process, lines()
        finally:
            if process.poll() is None:
                time.sleep(0.5)
                process.kill()
            process.wait()
            reader.join()


def serve(name: str, folder: str, scratch: str, start: str, count: str, *, seed: int) -> None:
    """The judging process."""
    victim = VICTIMS[name].load()
    cases = victim(Path(folder), Path(scratch), seed)
    judge.limit_this_process()
    judge.serve(cases, int(start), int(count), VICTIMS[name].most_s)


def line(name: str, tally: Tally) -> str:
    """A row of the table."""
    refused, harmless, findings = (tally.outcomes[outcome] for outcome in ("refused", "harmless", "finding"))
    cells = (name, sum(tally.outcomes.values()), refused, harmless, findings, f"{tally.slowest_s:.1f}")
    return f"| {' | '.join(map(str, cells))} |"


def write_table(tallies: Mapping[str, Tally]) -> None:
    """Put the table between its two marks in docs/security.md."""
    total = Tally()
    for tally in tallies.values():
        total.outcomes += tally.outcomes
        total.slowest_s = max(total.slowest_s, tally.slowest_s)
    head = (
        "| victim | cases | refused in a sentence | harmless | findings | slowest, s |\n|---|---:|---:|---:|---:|---:|"
    )
    table = "\n".join((head, *(line(name, tally) for name, tally in tallies.items()), line("**all**", total)))
    before, rest = PAGE.read_text(encoding="utf-8").split("<!-- campaign -->\n", 1)
    after = rest.split("<!-- /campaign -->", 1)[1]
    text = f"{before}<!-- campaign -->\n{table}\n<!-- /campaign -->{after}"
    PAGE.write_text(text, encoding="utf-8")


if __name__ == "__main__":
    sys.exit(main())
