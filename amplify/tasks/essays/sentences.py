"""Essays as sentences, for people and language models."""

from collections.abc import Sequence

SUBJECTS = ("bridge", "harbour", "market", "school", "theatre", "garden", "mill", "library")
PREDICATES = (
    "is older than the town hall",
    "was paid for by a guild",
    "lost its roof in a storm",
    "belongs to the council",
    "earns more than it costs",
    "closes in winter",
    "is built of local stone",
    "was moved a century ago",
    "has a second entrance",
    "is named after a sailor",
    "appears on the town's seal",
    "was painted by a famous visitor",
    "employs a dozen people",
    "is run by volunteers",
    "publishes its accounts",
    "draws visitors from abroad",
    "is crowded on Sundays",
    "charges no admission",
    "was flooded twice",
    "is protected by law",
    "needs a new foundation",
    "has a bell that still rings",
    "is lit by gas",
    "hides a cellar",
)
"""Three for each claim of a family."""
NAMES = ("Ar", "Bel", "Cor", "Dun", "Esk", "Far", "Gol", "Hal")
ENDINGS = ("by", "den", "ford", "ham", "ley", "mouth", "ton", "wick")


def topic_name(topic: int) -> str:
    """Returns the name of the town that a topic is about; distinct for all topics.

    Args:
        topic: its number.
    """
    high, rest = divmod(topic, len(NAMES) * len(ENDINGS))
    name = NAMES[rest % len(NAMES)] + ENDINGS[rest // len(NAMES)]
    return name if high == 0 else f"{name} {high + 1}"


def statement_text(claim: int, statement: int, claims_per_family: int) -> str:
    """Returns one statement of a claim, without its subject.

    Args:
        claim: its number.
        statement: its number in the claim.
        claims_per_family: claims with the same subject.
    """
    place = claim % claims_per_family
    return PREDICATES[3 * place + statement]


def claim_text(claim: int, claims_per_family: int) -> str:
    """Returns a claim as a sentence.

    Args:
        claim: its number.
        claims_per_family: claims with the same subject.
    """
    subject = SUBJECTS[claim // claims_per_family]
    first, second, third = (statement_text(claim, s, claims_per_family) for s in range(3))
    return f"The {subject} {first}, {second}, and {third}."


def seeming_text(name: str, claim: int, seems: Sequence[bool], claims_per_family: int) -> str:
    """Returns what can be read about a claim as a sentence.

    Args:
        name: of the claim.
        claim: its number.
        seems: whether each of its statements seems right.
        claims_per_family: claims with the same subject.
    """
    said = (
        statement_text(claim, place, claims_per_family)
        + (", it seems" if right else ", which is doubtful")
        for place, right in enumerate(seems)
    )
    return f"{name}: the {SUBJECTS[claim // claims_per_family]} {'; '.join(said)}."
