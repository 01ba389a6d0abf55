"""Runs a study's cells one by one, and writes its figure."""

from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

from amplify.errors import AmplifyError
from amplify.files.writing import replacing
from amplify.studies.reports import REPORTS
from amplify.studies.seeds import FEWEST, complete
from amplify.studies.study import (
    CELLS,
    FILE,
    Cell,
    Report,
    Runs,
    Study,
    cells,
    read_study,
    run_cell,
)

FIGURE = "study.png"


def open_study(experiment: Path) -> tuple[Study, Report]:
    """Reads a study and checks it against its report.

    Args:
        experiment: the folder of its `study.toml`.

    Returns:
        The study and its report.

    Raises:
        AmplifyError: the file cannot be read, or does not fit its report.
    """
    study, path = read_study(experiment), experiment / FILE
    if study.report not in REPORTS:
        raise AmplifyError(
            f"{path}: report must be one of {', '.join(REPORTS)}, got {study.report!r}"
        )
    report = REPORTS[study.report]
    if tuple(study.arms) != report.arms:
        raise AmplifyError(
            f"{path}: arms must be {', '.join(report.arms)}, in this order, got"
            f" {', '.join(study.arms)}"
        )
    return study, report


def run_study(
    experiment: Path,
    study: Study,
    report: Report,
    seeds: Sequence[int] | None,
    begin: Callable[[Cell, int, int], None],
) -> Runs:
    """Runs or resumes all cells of a study.

    Args:
        experiment: the folder that cells derive from.
        study: the study.
        report: measures each cell.
        seeds: instead of the study's own.
        begin: called before each cell with its number, from 1, and that of all cells, which falls
            where the report wants fewer.

    Returns:
        The runs of each arm, by seed.

    Raises:
        AmplifyError: if a cell cannot be run, or is interrupted.
    """
    every = cells(study, experiment, seeds)
    for cell in every[: len(study.arms)]:  # a wrong arm is not found out after an hour
        cell.derive()
    found: dict[str, dict[int, Any]] = {arm: {} for arm in study.arms}
    left_out = 0
    for number, cell in enumerate(every, 1):
        wanted = report.wanted(found, cell.seed) if report.wanted else [*study.arms]
        if cell.arm not in wanted:
            left_out += 1
            continue
        begin(cell, number - left_out, len(every) - left_out)
        results = run_cell(study, cell, report, wanted[0])
        found[cell.arm][cell.seed] = report.read(results)
    return found


def write_figure(experiment: Path, report: Report, runs: Runs) -> Path | None:
    """Writes the figure of a study; returns its path, or None if it has too few seeds.

    Args:
        experiment: the folder that cells derive from.
        report: draws it.
        runs: from `run_study`.
    """
    seeds, done = complete(runs)
    if len(seeds) < FEWEST:
        return None
    path = experiment / CELLS / FIGURE
    with replacing(path, "wb") as file:
        file.write(report.figure(done))
    return path
