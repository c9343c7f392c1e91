"""Latency that can be believed: fresh processes, interleaved candidates, parity around the timing, and a verdict."""

from litehrnet_stage2.runtime.latency.candidates import BENCHABLE, bundle_candidates, try_candidates
from litehrnet_stage2.runtime.latency.judge import Bounds, judge
from litehrnet_stage2.runtime.latency.measure import measure, measure_here
from litehrnet_stage2.runtime.latency.plan import PROCESSES, TIERS, Candidate, Plan, Tier, tier_named
from litehrnet_stage2.runtime.latency.result import CandidateResult, Result, Run
from litehrnet_stage2.runtime.latency.result_file import SCHEMA_VERSION, ResultError, read_result

__all__ = [
    "BENCHABLE",
    "PROCESSES",
    "SCHEMA_VERSION",
    "TIERS",
    "Bounds",
    "Candidate",
    "CandidateResult",
    "Plan",
    "Result",
    "ResultError",
    "Run",
    "Tier",
    "bundle_candidates",
    "judge",
    "measure",
    "measure_here",
    "read_result",
    "tier_named",
    "try_candidates",
]
