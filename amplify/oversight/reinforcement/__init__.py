"""Training an assistant against a reward model."""
