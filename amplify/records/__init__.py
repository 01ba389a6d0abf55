"""What rounds leave on disk: their folders, records and provenance."""
