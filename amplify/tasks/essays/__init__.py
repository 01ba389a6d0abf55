"""Essays: a world in which the worth of a long answer is known, but hard to judge."""
