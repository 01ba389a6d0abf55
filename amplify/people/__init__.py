"""People as overseers: who answers what, with whose help, and what became of it.

`queue` is the state that the log of events amounts to; `collection` puts a round's questions up and
gathers the answers; `worker` answers people's sub-questions with the best assistant.
"""
