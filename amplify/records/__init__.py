"""What a round leaves on disk, and what its record says."""
