"""Clarifai's gRPC link: its runners dial in here, and its SDK's clients call.

Needs the extra ``clarifai``; nothing imports this that does not use it.
"""
