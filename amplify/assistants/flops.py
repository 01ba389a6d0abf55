"""How much arithmetic a training step needs, and how much memory one answered token must read: what
measured times are held against.
"""

from jaxtyping import Array, Float

from amplify.assistants.layers import Architecture

Number = int | float | Float[Array, ""]
"""A count, which may be traced."""


def matrix_weights(of: Architecture) -> int:
    """Weights of the layers' matrices: all that are multiplied with every token."""
    heads = of.width * of.head_width * (2 * of.heads + 2 * of.key_heads)
    mlp = (3 if of.gated else 2) * of.width * of.hidden
    return of.layers * (heads + mlp)


def causal_pairs(length: int) -> int:
    """Pairs of a token and one that it attends to, itself counted, in a sequence on its own."""
    return length * (length + 1) // 2


def training_pairs(context: int, questions: int, question: int) -> int:
    """Pairs attended to in one row: a context, and questions behind it that do not see each other.

    Args:
        context: tokens of the context.
        questions: how many questions stand behind it.
        question: tokens of a question with its answer.
    """
    behind = questions * (question * context + causal_pairs(question))
    return causal_pairs(context) + behind


def training_flops(of: Architecture, tokens: Number, answered: Number, pairs: Number) -> Number:
    """Floating-point operations of a training step, forward and backward, as the model FLOPs
    utilisation (MFU) counts them: what rematerialisation computes again is left out. Chowdhery et
    al. 2022 (arXiv:2204.02311), appendix B.

    Args:
        of: the model.
        tokens: read in the step, padding left out.
        answered: tokens whose logits are computed.
        pairs: of a token and one that it attends to, in all rows.
    """
    # Floats: these numbers are too large for the integers of a traced computation.
    layers = 6.0 * matrix_weights(of) * tokens
    head = 6.0 * of.vocabulary * of.width * answered
    attention = 12.0 * of.layers * of.heads * of.head_width * pairs
    return layers + head + attention


def answer_bytes(
    of: Architecture, contexts: int, context: int, questions: int, own: int, bytes_each: int
) -> int:
    """Bytes that must be read to say one more token of each answer: the lower bound of its time is
    this, divided by the memory's bandwidth.

    Weights are read once, and so is each context's cache, which its questions share.

    Args:
        of: the model.
        contexts: how many there are.
        context: tokens of each.
        questions: about each context.
        own: tokens of a question and of what has been answered.
        bytes_each: of a weight, a key's and a value's number: 2 for bfloat16.
    """
    weights = matrix_weights(of) + of.vocabulary * of.width
    token = 2 * of.layers * of.key_heads * of.head_width  # a key and a value
    cache = contexts * token * (context + questions * own)
    return bytes_each * (weights + cache)
