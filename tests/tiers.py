"""Which test is quick and which needs a device's tools: decided here, of files and fixtures, and nowhere else.

    make check          the quick ones: the small network, in this process alone
    make test           all but those that need a device's tools
    make test-devices   those: compilers, emulators, adb, ssh, browsers

A quick test that starts a program fails and says so.
"""

from __future__ import annotations

import os
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest
from hypothesis import settings

TESTS = Path(__file__).parent

DEVICE_FIXTURES = frozenset({"need", "runner", "arm_runner", "arm_python", "driven", "visit", "pem"})
"""What only runs with tools that Python packages do not bring."""
DEVICE_FILES = frozenset(
    {
        "apps/test_page.py",
        "apps/test_self_check.py",
        "runtime/test_arm_instructions.py",
        "runtime/test_benchmark_on_device.py",
        "runtime/test_devices_adb.py",
        "runtime/test_devices_emulated.py",
        "runtime/test_devices_ssh.py",
        "runtime/test_native_runner.py",
        "runtime/test_networks_on_arm.py",
        "runtime/test_old_x86.py",
    }
)

QUICK_FOLDERS = ("reference/", "runtime/")
SLOW_FIXTURES = frozenset(
    {
        *("python", "stage2", "serving"),  # programs
        *("photographs", "frozen", "function"),  # a network that is not small
        *("small_bundle", "bundle_folder", "other_bundle", "apple_bundle", "codes_bundle", "in_place"),  # conversions
    }
)
SLOW = frozenset(
    {
        "reference/test_artifacts.py::test_a_format_is_one_file_and_one_row",
        "reference/test_files.py::test_what_a_dead_run_left_is_swept_and_what_a_living_one_makes_is_not",
        "reference/test_odd_networks.py",
        "reference/test_runtime_rules.py",
        "runtime/coreml/test_coreml_eval.py",
        "runtime/coreml/test_coreml_operators.py",
        "runtime/test_benchmark.py",
        "runtime/test_benchmark_verdict.py",
        "runtime/test_bundle.py::test_a_bundle_of_schema_2_stays_readable_and_gives_its_codes",
        "runtime/test_bundle.py::test_codes_that_cross_channels_first_as_in_older_bundles_are_fed_as_their_manifest_says",
        "runtime/test_cache.py::test_a_planted_loader_is_not_run",
        "runtime/test_devices_parse.py",
        "runtime/test_hostile_devices.py",
        "runtime/test_litert.py",
        "runtime/test_onnx_file.py::test_the_process_that_tries_refuses_it_before_the_library_is_given_it",
        "runtime/test_onnxruntime_surroundings.py",
        "runtime/test_planted_modules.py",
        "runtime/test_sessions_library.py",
        "runtime/test_several_inputs.py",
        "runtime/test_web_server.py",
        "runtime/test_web_visits.py",
    }
)
"""Of the quick folders, the files and tests that convert many networks, wait, or start programs."""

PROGRAMS = {"subprocess.Popen", "os.system", "os.fork", "os.posix_spawn"}
"""Audit events of a program's start."""

# The same examples each time, and few: what fails once fails again, and the quick tests stay quick.
settings.register_profile("fixed", derandomize=True, database=None, deadline=None, max_examples=25)
settings.load_profile("fixed")

ASKED_BY_LIBRARIES = {"lscpu"}  # numpy.testing asks it for the processor when it is loaded, before numpy 2.2

_quick_test = ""  # the one that is running


def pytest_configure(config: pytest.Config) -> None:
    """Declare the markers, and keep workers that run side by side from fighting over cores."""
    config.addinivalue_line("markers", "quick: the small network, in this process alone")
    config.addinivalue_line("markers", "device: needs tools that Python packages do not bring")
    if getattr(config.option, "numprocesses", None):  # the workers inherit it, before they load torch
        os.environ.setdefault("OMP_NUM_THREADS", "1")
    named = {name.partition("::")[0] for name in SLOW | DEVICE_FILES}
    if missing := sorted(name for name in named if not (TESTS / name).is_file()):
        raise pytest.UsageError(f"tests/tiers.py names files that are not there: {', '.join(missing)}")


def pytest_ignore_collect(collection_path: Path, config: pytest.Config) -> bool | None:
    """Files without a quick test need not be imported to run the quick ones."""
    if config.option.markexpr == "quick" and collection_path.suffix == ".py" and not _may_be_quick(collection_path):
        return True
    return None


@pytest.hookimpl(tryfirst=True)  # before `-m` chooses
def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Give each test its marker."""
    for item in items:
        fixtures = set(getattr(item, "fixturenames", ()))
        name = f"{_file(item.path)}::{item.name.partition('[')[0]}"
        if _file(item.path) in DEVICE_FILES or fixtures & DEVICE_FIXTURES:
            item.add_marker("device")
        elif _may_be_quick(item.path) and not fixtures & SLOW_FIXTURES and name not in SLOW:
            item.add_marker("quick")


@pytest.hookimpl(wrapper=True)
def pytest_runtest_protocol(item: pytest.Item) -> Iterator[None]:
    """Note which quick test runs, its fixtures included."""
    global _quick_test
    _quick_test = item.nodeid if item.get_closest_marker("quick") else ""
    try:
        return (yield)
    finally:
        _quick_test = ""


def _refuse_programs(event: str, arguments: tuple[object, ...]) -> None:
    if _quick_test and event in PROGRAMS and not ASKED_BY_LIBRARIES.intersection(map(str, arguments[:1])):
        pytest.fail(f"{_quick_test} starts a program, {arguments[:1]}: it is not quick, so name it in tests/tiers.py")


def _may_be_quick(path: Path) -> bool:
    file = _file(path)
    return file.startswith(QUICK_FOLDERS) and file not in SLOW | DEVICE_FILES


def _file(path: Path) -> str:
    return path.relative_to(TESTS).as_posix() if path.is_relative_to(TESTS) else ""


sys.addaudithook(_refuse_programs)
