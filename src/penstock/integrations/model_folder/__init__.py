"""Clarifai's model folders (``config.yaml``, ``1/model.py``), served as projects."""
