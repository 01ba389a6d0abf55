"""`python -m amplify.crowd EXPERIMENT --address URL`: simulated people answer on the web pages.

All of them are one process, which ends once the round is closed or when it is told to stop.
"""

import asyncio
import functools
import signal
import sys
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Annotated

import tyro

from amplify.crowd.simulated import Decide, Diary, run_crowd
from amplify.crowd.simulated_policy import decide, review
from amplify.errors import AmplifyError
from amplify.experiment.sections import Experiment
from amplify.overseers.habits import CrowdConfig
from amplify.overseers.human import HumanReviewers
from amplify.people.impressions import read_impressions
from amplify.people.roster import Member, Roster
from amplify.people.serving import end_with_parent
from amplify.task_abilities import strategy_of


def invite_crowd(roster: Roster, people: int, now: float) -> list[Member]:
    """Returns this many simulated people: those invited before first, then new ones."""
    there = [m for m in roster.members() if m.simulated and (m.expires is None or m.expires > now)]
    missing = people - len(there)
    return [*there, *roster.invite([""] * max(0, missing), now, simulated=True)][:people]


def serve_crowd(
    experiment: Annotated[Path, tyro.conf.Positional, tyro.conf.arg(metavar="EXPERIMENT")],
    address: Annotated[str, tyro.conf.arg(help="of its web server")] = "http://127.0.0.1:8000",
) -> None:
    """Let simulated people answer an experiment's questions on its web pages."""
    from amplify.reading.experiment_file import read_experiment

    chosen = read_experiment(experiment / "experiment.toml")
    decides = _decider(experiment, chosen)
    config = CrowdConfig(**chosen.values.get("overseer.crowd", {}))
    members = invite_crowd(Roster(experiment), config.people, time.time())
    asyncio.run(_run_until_stopped(decides, config, members, address))


def _decider(folder: Path, experiment: Experiment) -> Decide:
    """How people decide: by their impressions of answers, or by the task's strategy."""
    if isinstance(experiment.overseer, HumanReviewers):
        return functools.partial(review, read_impressions(folder))
    if strategy_of(experiment.task) is None:
        raise AmplifyError(
            f"{folder}: simulated people need a task with a strategy, and"
            f" {type(experiment.task).__name__} has none"
        )
    return functools.partial(decide, experiment.task)


async def _run_until_stopped(
    decide: Decide, config: CrowdConfig, members: Sequence[Member], address: str
) -> None:
    diary = Diary()
    crowd = asyncio.ensure_future(run_crowd(decide, config, members, address, diary))
    for number in (signal.SIGTERM, signal.SIGINT):
        asyncio.get_running_loop().add_signal_handler(number, crowd.cancel)
    try:
        await crowd
    except asyncio.CancelledError:
        pass  # what was not acknowledged is done by the next process
    except ExceptionGroup as errors:
        raise errors.exceptions[0] from None
    submitted = sum(done.form == "submit" for done in diary.done)
    print(f"{len(members)} simulated people submitted {submitted} answers")


def main(argv: Sequence[str] | None = None) -> None:
    end_with_parent()
    try:
        tyro.cli(serve_crowd, args=argv, description=serve_crowd.__doc__)
    except AmplifyError as error:
        print(f"amplify: {error}", file=sys.stderr)
        raise SystemExit(2) from None


if __name__ == "__main__":
    main()
