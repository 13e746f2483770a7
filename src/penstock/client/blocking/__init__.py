"""The client for threads: ``client.py`` and ``stream.py`` are written by ``scripts/blocking_client.py``."""
