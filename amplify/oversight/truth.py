"""The supervised baseline: amplification in which every sub-question is answered truly.

It shows what the assistant could learn if its own errors did not matter. Christiano, Shlegeris and
Amodei 2018 (arXiv:1810.08575), section 3.
"""

import dataclasses
from typing import Any

from amplify.oversight.amplification import Amplification
from amplify.types import Task, knows_truth


@dataclasses.dataclass(frozen=True)
class Truth(Amplification):
    """`[oversight] kind = "truth"`."""

    sub_answers = "truth"

    def adapt_overseer(self, task: Task, overseer: Any) -> Any:
        """The overseer's section, unchanged. Raises ValueError for a task that knows no truth."""
        if not knows_truth(task):
            raise ValueError(
                'oversight.kind = "truth" needs a task that knows the truth, and truth and is_right'
                f" of {type(task).__name__} are None"
            )
        return overseer
