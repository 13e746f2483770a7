"""Annotations in the formats of other tools: each a pure function of the log, checked after it is written."""
