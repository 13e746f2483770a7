"""Settings of Clarifai's link: environment (``PENSTOCK_CLARIFAI_*``) > default."""

from __future__ import annotations

from typing import Annotated

from pydantic import Field
from pydantic_settings import BaseSettings, SettingsConfigDict

GIB = 1024 * 1024 * 1024


class LinkSettings(BaseSettings):
    """How Clarifai's runners and clients are served; times in seconds, sizes in bytes."""

    model_config = SettingsConfigDict(env_prefix="PENSTOCK_CLARIFAI_", frozen=True, extra="ignore")

    port: Annotated[
        int | None,
        Field(ge=0, le=65535, description="gRPC port; 0 takes a free one, without it there is none."),
    ] = None
    idle_s: Annotated[float, Field(gt=0, description="After how long without work a stream is renewed.")] = (
        40.0
    )
    cancel_s: Annotated[
        float, Field(gt=0, description="How long a runner may take to stop a cancelled item by itself.")
    ] = 1.0
    keepalive_s: Annotated[
        float,
        Field(gt=0, description="How often a connection is tried; given up after as long again."),
    ] = 5.0
    queue: Annotated[int, Field(ge=0, description="Calls of a command that may wait for a place.")] = 256
    max_message: Annotated[int, Field(gt=0, le=2**31 - 1, description="Largest message.")] = GIB
