"""What every message and file of the agreement has in common."""

from pydantic import BaseModel, ConfigDict


class Frozen(BaseModel):
    """Immutable, and unknown fields are errors: a misspelt field is said, not swallowed."""

    model_config = ConfigDict(frozen=True, extra="forbid", allow_inf_nan=False)
