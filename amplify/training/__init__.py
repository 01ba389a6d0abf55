"""Training: phases of a round, their compiled training step, and the training loop."""
