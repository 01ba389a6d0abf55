"""Ways to make a training signal, one file each. Iterated amplification is the default."""

from amplify.oversight.amplification import Amplification
from amplify.oversight.direct import Direct
from amplify.oversight.truth import Truth

OVERSIGHT = {"amplification": Amplification, "truth": Truth, "direct": Direct}
"""By the kind that an experiment file names."""
