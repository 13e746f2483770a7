"""Clients of the seam: in process and over HTTP."""
