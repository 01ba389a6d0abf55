"""Retrieval tasks: questions in natural language, whose contexts are retrieved by a search."""
