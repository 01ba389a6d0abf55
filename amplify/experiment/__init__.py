"""What an experiment is: the sections of its file as dataclasses, and its identity."""
