"""A pytest plugin that records what was imported, and which tests failed and how.

Loaded by `-p tests.mutations.witness` in the patched copy; where to write comes in the
environment variable WITNESS.
"""

import json
import os
from pathlib import Path

import pytest

_told: dict = {"jrnn": None, "passed": 0, "failed": [], "broken": []}


def pytest_collectreport(report: pytest.CollectReport) -> None:
    if report.failed:
        _told["broken"].append(f"{report.nodeid}: {report.longreprtext}")


def pytest_runtest_makereport(item: pytest.Item, call: pytest.CallInfo[None]) -> None:
    if call.excinfo is None:
        _told["passed"] += call.when == "call"
    elif isinstance(call.excinfo.value, pytest.skip.Exception):
        pass
    elif call.when == "call" and isinstance(call.excinfo.value, AssertionError):
        _told["failed"].append(item.nodeid)
    else:
        _told["broken"].append(f"{item.nodeid}: {call.excinfo.exconly()}")


def pytest_sessionfinish() -> None:
    import jrnn  # late: the one that the tests imported

    _told["jrnn"] = jrnn.__file__
    text = json.dumps(_told, indent=2)
    Path(os.environ["WITNESS"]).write_text(text, encoding="utf-8")
