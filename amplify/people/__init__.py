"""People as overseers: who answers what, with whose help, and what became of it.

`queue` is the state that the log of events amounts to; `collection` puts a round's questions up and
gathers the answers; `worker` answers people's sub-questions with the best assistant. What the log
says of all that, without jax: `choice`, which answer counts; `quality`, how people do and agree;
`uplift`, what the help is worth; `ledger`, what it cost; `stale`, what rests on answers that were
changed; `trees`, how each answer came about.
"""
