"""Annotations of images and video: what a command detects in frames, as records that can be resumed."""
