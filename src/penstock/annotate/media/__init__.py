"""Media: which files there are, which of their frames are looked at, and how they are decoded, elsewhere."""
