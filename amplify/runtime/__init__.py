"""What a running process knows of itself: its peers, its device, its progress, what it asked."""
