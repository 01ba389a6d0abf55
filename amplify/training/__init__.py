"""Training: phases, their joint compiled step, and the loop that runs it."""
