"""What every model of the configuration shares."""

from __future__ import annotations

from typing import Annotated

from pydantic import BaseModel, ConfigDict, Field

Fraction = Annotated[float, Field(ge=0.0, le=1.0)]
Positive = Annotated[float, Field(gt=0.0)]
Count = Annotated[int, Field(ge=1)]
Vector3 = tuple[float, float, float]


class Model(BaseModel):
    """Frozen model that refuses unknown keys."""

    model_config = ConfigDict(frozen=True, extra="forbid")
