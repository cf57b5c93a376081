"""JAX, Optax and SciPy, imported at first use: a kernel can be listed, checked and looked at without them.

A kernel's names, axes, units and parameters lie in the module that computes it. Listing kernels, checking a job
file and looking at a store read these alone, and start in a third of a second instead of two. So the modules of
ctd and jobs write

    from __future__ import annotations
    from ctd.late import Array, Float, jax, jnp, lax

in place of `import jax`. Python does not evaluate their annotations, so the types of arrays cost nothing either:
`Float[Array, "time unit"]` is a real array (time, unit), as in jaxtyping. `uv run pytest --shapes` checks them at
every call. A kernel of your own may import JAX as usual.
"""

from __future__ import annotations

from collections.abc import Callable
from functools import cached_property, update_wrapper
from importlib import import_module
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import ArrayLike


class Late:
    """A stand-in for the module `name`, which imports it when an attribute is read."""

    def __init__(self, name: str) -> None:
        self.__name__ = name

    def __getattr__(self, name: str) -> Any:
        # Tools read private names of every module (pytest reads `_mock_name`); that must not import JAX.
        if name.startswith("_") and name != "__version__":
            raise AttributeError(name)
        value = getattr(import_module(self.__name__), name)
        setattr(self, name, value)  # so that the next access no longer comes through here
        return value

    def __reduce__(self) -> tuple[Any, ...]:
        # cloudpickle sends a notebook's kernel with its globals by value; a module itself cannot be pickled.
        return Late, (self.__name__,)

    def __repr__(self) -> str:
        return f"<late module {self.__name__}>"


class custom_vjp:
    """`jax.custom_vjp`, applied when the function is first called."""

    def __init__(self, function: Callable[..., Any], nondiff_argnums: tuple[int, ...] = ()) -> None:
        update_wrapper(self, function)
        self._function, self._fixed = function, nondiff_argnums

    def defvjp(self, forward: Callable[..., Any], back: Callable[..., Any]) -> None:
        """Set the forward and the backward pass, as `jax.custom_vjp.defvjp` does."""
        self._forward, self._back = forward, back

    @cached_property
    def _applied(self) -> Any:
        # Applied at the first call, since it imports JAX.
        function = jax.custom_vjp(self._function, nondiff_argnums=self._fixed)
        function.defvjp(self._forward, self._back)
        return function

    def __call__(self, *args: Any) -> Any:
        return self._applied(*args)


class _LateType:
    """A type of jaxtyping, such as `Float`, which imports jaxtyping when an annotation is evaluated."""

    def __init__(self, name: str) -> None:
        self._name = name

    def __getitem__(self, parameters: Any) -> Any:
        return getattr(import_module("jaxtyping"), self._name)[parameters]


class _IsArray(type):
    """Makes the arrays and scalars of NumPy, and JAX's arrays, traced ones included, instances of a class."""

    def __instancecheck__(cls, value: object) -> bool:
        return isinstance(value, (np.ndarray, np.generic, jax.Array))


if TYPE_CHECKING:
    import jax
    import jax.numpy as jnp
    import optax
    import scipy
    from jax import Array, lax
    from jaxtyping import Bool, Float, Int, PyTree, Real
else:
    jax, jnp, lax = map(Late, ("jax", "jax.numpy", "jax.lax"))
    optax, scipy = map(Late, ("optax", "scipy"))
    Bool, Float, Int, Real = map(_LateType, ("Bool", "Float", "Int", "Real"))

    class Array(metaclass=_IsArray):
        """An array on a device, in a traced program or on the host: functions take all three."""

    PyTree = Any
    """Arrays nested in tuples, named tuples and dictionaries, as JAX flattens them."""


type Number = Array | float | int
"""A number, or an array that broadcasts with the others, traced or not."""


def on_host(values: ArrayLike, dtype: jax.typing.DTypeLike | None = None) -> Array:
    """Return `np.asarray(values, dtype)`, typed as the arrays of the functions that take it: JAX's take NumPy's, too.

    >>> on_host([1, 2], "float32")
    array([1., 2.], dtype=float32)
    """
    array: Any = np.asarray(values, dtype)
    return array


__all__ = [
    "Array", "Bool", "Float", "Int", "Late", "Number", "PyTree", "Real", "custom_vjp", "jax", "jnp", "lax", "on_host", "optax",
    "scipy",
]  # fmt: skip
