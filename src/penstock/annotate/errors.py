"""What can go wrong with annotating, beside what goes wrong with calls."""

from __future__ import annotations

from penstock.errors import PenstockError


class AnnotateError(PenstockError):
    """Base of what is raised here."""


class ConfigError(AnnotateError, ValueError):
    """What was asked for is contradictory, or cannot be done with what is installed."""


class MediaError(AnnotateError):
    """A source is not there, cannot be read, or breaks a limit."""


class AnswerError(AnnotateError):
    """A command answered what its declared format is not; the text names frame, item and field."""


class BatchError(AnswerError):
    """A command that was asked about several frames did not answer with a list as long."""


class StorageError(AnnotateError):
    """A log, a manifest or a download cannot be written, as where a disk is full; the text says what to do.
    The log is valid up to its last line, and goes on once it can be written."""


class ResumeError(AnnotateError):
    """A log cannot be continued; the text says what differs, and what to do."""
