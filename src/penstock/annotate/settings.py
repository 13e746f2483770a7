"""All that decides what a run writes; a log goes on only with the same."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, Literal

import msgspec

from penstock.annotate.answers import AnswerFormat
from penstock.annotate.media.messages import Form, Limits
from penstock.annotate.media.sampling import Sampling
from penstock.annotate.refine import Refining
from penstock.annotate.tracking import Tracking


class Model(msgspec.Struct, frozen=True, kw_only=True, omit_defaults=True, forbid_unknown_fields=True):
    """A command that is asked about each frame.

    Args:
        command: Its name.
        params: What it is given beside the frame.
        param: The parameter that takes the frame.
        plain: Whether that is the picture alone, as base64, instead of an object that also tells its size and
            which frame it is.
        batch: How many frames it is given at once, as a list, to answer with a list as long; None: it is
            given one frame, and no list.
        answer: How it answers.
        style: Whether it takes and gives penstock's forms, as the above say, or those of a method of
            Clarifai's; then the picture is ``{"base64": ...}``, ``answer`` is not looked at, and concepts go
            by their names, or with ``clarifai-ids`` by their ids.

    Raises:
        ValueError: ``batch`` is less than 1.
    """

    command: str
    params: Mapping[str, Any] = {}
    param: str = "image"
    plain: bool = False
    batch: int | None = None
    answer: AnswerFormat = AnswerFormat()
    style: Literal["penstock", "clarifai", "clarifai-ids"] = "penstock"

    def __post_init__(self) -> None:
        if self.batch is not None and self.batch < 1:
            raise ValueError(f"batch is {self.batch}; it must be at least 1")


class Settings(msgspec.Struct, frozen=True, kw_only=True, omit_defaults=True, forbid_unknown_fields=True):
    """What decides what is written.

    Args:
        models: The commands; what several find is put together.
        sampling: Which frames are looked at.
        form: How a frame travels: as its bytes, red, green and blue; or as a PNG or JPEG file.
        quality: Of JPEG.
        refining: What is kept of what is found.
        tracking: How objects are followed; None: they are not.
        on_error: Whether a frame that a command fails on ends the run, or is written as failed.
        tries: How often a command is asked about a frame, or a batch, in all, if it fails.
        limits: What a file may cost.

    Raises:
        ValueError: Something of it is contradictory.
    """

    models: tuple[Model, ...]
    sampling: Sampling = Sampling()
    form: Form = "raw"
    quality: int = 90
    refining: Refining = Refining()
    tracking: Tracking | None = None
    on_error: Literal["fail", "skip"] = "fail"
    tries: int = 1
    limits: Limits = Limits()

    def __post_init__(self) -> None:
        if self.form == "raw" and any(model.style != "penstock" for model in self.models):
            raise ValueError("methods of Clarifai's take files; have frames sent as jpeg or png")
        if self.tries < 1:
            raise ValueError(f"tries is {self.tries}; it must be at least 1")

    @property
    def command(self) -> str:
        """The commands, by name."""
        return "+".join(model.command for model in self.models)

    @property
    def transport(self) -> str:
        """How a frame travels, in a word or two."""
        return f"jpeg {self.quality}" if self.form == "jpeg" else self.form

    def as_json(self) -> dict[str, Any]:
        """Return them as they stand in a manifest."""
        # By way of text, so that they are the same when they are read again.
        fields: dict[str, Any] = msgspec.json.decode(msgspec.json.encode(self))
        return {name: value for name, value in fields.items() if name != "limits"}
