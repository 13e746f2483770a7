"""penstock serves a model as a stream."""
