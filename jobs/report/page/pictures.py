"""Plots that a store keeps for readers who do not run its kernel. They may be a stranger's: every field is validated."""

import json
from dataclasses import MISSING, fields
from typing import Annotated, Any, Literal, Union, get_args

import numpy as np
from numpy.typing import ArrayLike
from pydantic import BaseModel, ConfigDict, Field, TypeAdapter, create_model

from ctd.plots import Axis, Layer, Plot, Scale
from jobs import keys
from jobs.storage import objects
from jobs.storage.checksums import checksummed, verified
from jobs.store.store import Store

MAX_BYTES = 1_000_000
"""Largest size of the plots of one group."""

Number = int | Annotated[float, Field(allow_inf_nan=False)] | None
Numbers = list[Number] | list[list[Number]]
FORMS: dict[Any, Any] = {
    ArrayLike: Numbers,
    ArrayLike | None: Numbers | None,
    Any: Numbers | None,
    int | None: Annotated[int, Field(ge=0)] | None,
}
"""Type of a field in ctd.plots -> type of what `plot_json` writes of it, where they differ."""
LAYERS: dict[str, type] = {layer.__name__.lower(): layer for layer in get_args(Layer)}
PARTS: dict[str, type] = {"x": Axis, "y": Axis, "scale": Scale}


def _model(part: type, **others: Any) -> Any:
    """The fields of a class of ctd.plots as `plot_json` writes them. others: fields that it writes in another form."""
    forms = {
        entry.name: (
            FORMS.get(entry.type, entry.type),
            ... if entry.default is MISSING else entry.default,
        )
        for entry in fields(part)
    }
    forbids = ConfigDict(extra="forbid")
    return create_model(part.__name__, __config__=forbids, **{**forms, **others})


_LAYERS: Any = tuple(_model(layer, kind=(Literal[kind], ...)) for kind, layer in LAYERS.items())
_LAYER: Any = Annotated[Union[_LAYERS], Field(discriminator="kind")]  # noqa: UP007  of a tuple
_OF_PARTS = {name: (_model(part), ...) for name, part in PARTS.items()}
_PLOT: Any = _model(Plot, layers=(list[_LAYER], ...), **_OF_PARTS)
_PLOTS: TypeAdapter[Any] = TypeAdapter(list[_PLOT])


def write_pictures(store: Store, group: int, plots: list[dict[str, object]]) -> None:
    """Store the first plots of a group, from `plot_json`, up to MAX_BYTES in total."""
    sizes = np.cumsum([len(json.dumps(plot)) for plot in plots])
    first_plots = plots[: np.count_nonzero(sizes <= MAX_BYTES)]
    objects.write(store.objects, keys.pictures(group), checksummed({"plots": first_plots}))


def read_pictures(store: Store, group: int) -> list[Plot]:
    """The plots that a store keeps of a group; [] if any of them is not valid."""
    data = objects.read(store.objects, keys.pictures(group))
    if data is None or len(data) > 2 * MAX_BYTES:
        return []
    try:
        models = _PLOTS.validate_python((verified(data) or {}).get("plots"))
        return [_plot(model) for model in models]
    except ValueError:  # pydantic's, or that of a layer whose arrays have several lengths
        return []


def _plot(model: BaseModel) -> Plot:
    values = dict(model)
    layers = [
        LAYERS[layer.kind](**{name: _array(name, value) for name, value in layer if name != "kind"})
        for layer in values["layers"]
    ]
    parts = {name: part(**dict(values[name])) for name, part in PARTS.items()}
    return Plot(**values | parts | {"layers": layers})


def _array(name: str, value: Any) -> Any:
    if not isinstance(value, list) or name == "text":
        return value
    array = np.array(value)
    return array.astype(float) if array.dtype == object else array  # None among them
