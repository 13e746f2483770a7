"""Who does the work: the only room that runs author code."""
