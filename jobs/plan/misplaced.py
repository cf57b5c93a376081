"""Find the field that an unknown field of a job belongs to, as `n_bits` belongs to `task: {name: flipflop, n_bits: 2}`."""

from collections.abc import Mapping
from typing import Any

from pydantic import BaseModel, ValidationError


def home_of(name: str, value: Any, params: Mapping[str, Any], model: type[BaseModel]) -> str | None:
    """The field, given as a name or a mapping with `name`, that accepts a parameter `name` of this value; None if none does."""
    if name in model.model_fields:
        return None
    for field, given in params.items():
        inner = {"name": given} if isinstance(given, str) else given
        if field not in model.model_fields or not isinstance(inner, dict) or "name" not in inner:
            continue
        # A field that accepts any parameter, such as a misspelt one, tells nothing.
        if _takes(model, field, inner | {name: value}) and not _takes(
            model, field, inner | {name + "_": value}
        ):
            return field
    return None


def _takes(model: type[BaseModel], field: str, value: Any) -> bool:
    """Whether a value is valid for a field, whatever is wrong with other fields."""
    try:
        model.model_validate({field: value})
    except ValidationError as error:
        return not any(fault["loc"][:1] == (field,) for fault in error.errors())
    return True
