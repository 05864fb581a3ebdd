"""What `pytest benchmarks` prints at its end: everyone's figures, and what moved."""

from pathlib import Path

import pytest

from benchmarks import report, results, suite
from benchmarks.cell import Cell
from benchmarks.comparison import compare

MEASURED: list[Cell] = []


@pytest.fixture
def measured():
    """Takes the cells that a test measured."""
    return MEASURED


def pytest_terminal_summary(terminalreporter):
    if not MEASURED:
        return
    for cell in MEASURED:
        terminalreporter.section(cell.key)
        for line in report.table(cell):
            terminalreporter.write_line(line)
        for name, why in cell.skipped.items():
            terminalreporter.write_line(f"not measured: {name}: {why}", yellow=True)
    baseline = Path(__file__).parent / "results" / f"{suite.machine()}.json"
    terminalreporter.section("against the committed results, by ratios")
    if not baseline.exists():
        terminalreporter.write_line(f"there are none of this machine ({suite.machine()})")
        return
    changes, _ = compare(results.read(baseline), {"cells": MEASURED})
    for change in changes:
        if change.moved:
            terminalreporter.write_line(
                f"{change.cell}: {change.name}: {change.factor:.2f} times the lead of "
                f"{change.before:.3g} (noise: up to {change.noise:.2f})",
                yellow=True,
            )
    still = sum(not change.moved for change in changes)
    terminalreporter.write_line(f"{still} of {len(changes)} leads are as they were")
