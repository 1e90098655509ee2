"""The base class of every message and file format."""

from pydantic import BaseModel, ConfigDict


class Frozen(BaseModel):
    """An immutable model. Unknown fields are errors, so that a misspelt field is reported instead of ignored."""

    model_config = ConfigDict(frozen=True, extra="forbid", allow_inf_nan=False)
