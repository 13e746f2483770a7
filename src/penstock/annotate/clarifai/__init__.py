"""Clarifai's forms: how its models answer, and its tasks of annotation."""
