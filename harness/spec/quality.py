"""What a method's tokens are worth, as a scenario states it: a published law, one's own figures, or nothing."""

from __future__ import annotations

from typing import Literal, Self

from pydantic import Field, FiniteFloat, model_validator

from netsim.documents import Document


class OwnPenalty(Document):
    """Of one method. tokens: how many times as many it needs for the same loss.  loss: by which share its loss is above
    data parallelism's after the same tokens.  runs: a folder of runs of a suite, whose held-out losses say so.
    """

    tokens: FiniteFloat | None = Field(default=None, gt=0, le=1000)
    loss: FiniteFloat | None = Field(default=None, gt=-0.5, le=1)
    runs: str | None = None
    source: str = Field(min_length=1)

    @model_validator(mode="after")
    def _one(self) -> Self:
        if sum(value is not None for value in (self.tokens, self.loss, self.runs)) != 1:
            raise ValueError("one of tokens, loss and runs")
        return self


class Quality(Document):
    """law: `scaling-laws-diloco` for DiLoCo, or `none`: only `own`, by the methods' labels."""

    law: Literal["scaling-laws-diloco", "none"] = "scaling-laws-diloco"
    own: dict[str, OwnPenalty] = {}
