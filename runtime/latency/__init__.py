"""Latency that can be believed: fresh processes, interleaved candidates, parity around the timing, and a verdict."""

from litehrnet_stage2.runtime.latency.benchmark import BenchmarkError, Settings, run_benchmark
from litehrnet_stage2.runtime.latency.candidates import BENCHABLE, bundle_candidates
from litehrnet_stage2.runtime.latency.plan import PROCESSES, TIERS, Candidate, Tier, tier_named
from litehrnet_stage2.runtime.latency.result import (
    SCHEMA_VERSION,
    CandidateResult,
    Result,
    ResultError,
    Run,
    read_result,
    schema,
)
from litehrnet_stage2.runtime.latency.validity import Bounds

__all__ = [
    "BENCHABLE",
    "PROCESSES",
    "SCHEMA_VERSION",
    "TIERS",
    "BenchmarkError",
    "Bounds",
    "Candidate",
    "CandidateResult",
    "Result",
    "ResultError",
    "Run",
    "Settings",
    "Tier",
    "bundle_candidates",
    "read_result",
    "run_benchmark",
    "schema",
    "tier_named",
]
