"""People as overseers: who answers what, with whose help, and what came of it.

What people did is a `log` of `events`. `state` folds it, over `items`; `rules` say what may happen
next. A round puts questions up (`assignment`) and runs `round_loop` until they are answered, while
`serving` keeps the web pages up for everybody in the `roster`. What the log says about that work:
`quality`, how people do and how far they agree; `results`, what the help is worth and what it cost;
`stale`, what rests on answers that were changed; `trees`, how each answer came about.

Nothing here knows models or imports jax: `oversight.people` passes functions that answer.
"""
