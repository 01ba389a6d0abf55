"""Tasks in plain language, whose contexts a search finds."""
