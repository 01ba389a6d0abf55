"""The supervised baseline: amplification in which every sub-question is answered truly.

It shows what the assistant could learn if its own errors did not matter. Christiano, Shlegeris and
Amodei 2018 (arXiv:1810.08575), section 3.
"""

import dataclasses

from amplify.oversight.amplification import Amplification


@dataclasses.dataclass(frozen=True)
class Truth(Amplification):
    """`[oversight] kind = "truth"`."""

    sub_answers = "truth"
