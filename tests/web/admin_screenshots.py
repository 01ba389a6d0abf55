"""`python -m tests.web.admin_screenshots OUT`: every page of whoever runs the experiment, and the
file of a round's trees, on a desk and a phone, in light and dark.
"""

import sys
import tempfile
from pathlib import Path

from amplify.people.roster import Roster
from amplify.people.trees import write_trees
from tests.web.experiment import make_experiment
from tests.web.processes import browser, server
from tests.web.screenshots import DEVICES

PAGES = {
    "rounds": "/admin",
    "people": "/admin/people",
    "disagreements": "/admin/disagreements",
    "disagreement": "/admin/disagreements/1-2-0",
    "answers": "/admin/answers",
    "answer": "/admin/answers/1-2-0",
    "trees": "/admin/trees",
    "tree": "/admin/trees/1-24-1",
    "rests-on": "/admin/rests-on?question=Which+river+flows+through+Arle%3F&answer=the+Arle+Water",
    "uplift": "/admin/uplift",
    "stale": "/admin/stale",
}


def main(out: Path) -> None:
    out.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory() as name, browser() as there:
        folder = make_experiment(Path(name) / "rivers")
        file = write_trees(folder, 1).as_uri()
        with server(folder) as (address, _):
            for device, options in DEVICES.items():
                for scheme in ("light", "dark"):
                    page = there.new_page(**options, color_scheme=scheme)
                    page.goto(f"{address}/in/{Roster(folder).admin().token}")
                    for what, path in {**PAGES, "trees-file": file}.items():
                        page.goto(path if path == file else address + path)
                        path_out = out / f"admin-{what}-{device}-{scheme}.png"
                        page.screenshot(path=path_out, full_page=True)
                    page.context.close()


if __name__ == "__main__":
    main(Path(sys.argv[1]))
