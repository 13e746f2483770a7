"""Settings of a gateway: environment (``PENSTOCK_GATEWAY_*``) > default."""

from __future__ import annotations

from typing import Annotated

from pydantic import Field
from pydantic_settings import BaseSettings, SettingsConfigDict


class GatewaySettings(BaseSettings):
    """How a gateway treats its runners; times in seconds, sizes in bytes."""

    model_config = SettingsConfigDict(env_prefix="PENSTOCK_GATEWAY_", frozen=True, extra="ignore")

    heartbeat_s: Annotated[
        float, Field(gt=0, description="How often a runner is asked whether it is there; away after 3 times.")
    ] = 3.0
    resume_s: Annotated[
        float, Field(gt=0, description="How long calls wait for a runner whose connection is lost.")
    ] = 30.0
    hello_s: Annotated[float, Field(gt=0, description="How long a runner may take to say who it is.")] = 10.0
    max_runners: Annotated[int, Field(gt=0, description="Runners at once.")] = 10_000
    max_commands: Annotated[
        int, Field(gt=0, description="Different commands and workflows that are known.")
    ] = 1_000
    window: Annotated[
        int, Field(gt=0, description="How far a call on a runner may be ahead of the gateway.")
    ] = 256 * 1024
    prefix_blocks: Annotated[
        int,
        Field(ge=0, description="Blocks of a runner's caches that are kept in mind, for routing; 0 is none."),
    ] = 16_384
