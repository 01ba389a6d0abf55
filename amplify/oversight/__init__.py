"""Ways to make a training signal, one file each. Iterated amplification is the default."""

from amplify.oversight.amplification import Amplification

OVERSIGHT = {"amplification": Amplification}
"""By the kind that an experiment file names."""
