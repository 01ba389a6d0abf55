"""The supervised baseline: amplification in which every sub-question gets the true answer.

It shows what the assistant could learn if its own answers were always right. Christiano, Shlegeris
and Amodei 2018 (arXiv:1810.08575), section 3.
"""

import dataclasses

from amplify.oversight.amplification import Amplification


@dataclasses.dataclass(frozen=True)
class Truth(Amplification):
    """Oversight with true sub-answers: `[oversight] kind = "truth"`."""

    sub_answers = "truth"
