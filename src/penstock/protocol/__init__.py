"""What is said on the wire. Pure: no I/O, no clock, no event loop."""
