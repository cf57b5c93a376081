"""JAX, Optax and SciPy, imported when the first of their functions is called: what a kernel is can be said without them.

A kernel's names, axes, units and parameters lie in the module that computes it. Listing kernels, checking a job
file and looking at a store need those alone, and start in a third of a second instead of two. So the modules of
ctd and jobs have

    from ctd.late import jax, jnp, lax

in place of `import jax`, and annotations that nobody evaluates (`from __future__ import annotations`). A kernel of
your own may import JAX as usual.
"""

from collections.abc import Callable
from functools import cached_property, update_wrapper
from importlib import import_module
from typing import TYPE_CHECKING, Any


class Late:
    """The module `name`, imported when something of it is asked for."""

    def __init__(self, name: str) -> None:
        self.__name__ = name

    def __getattr__(self, name: str) -> Any:
        # Whoever looks through modules (pytest asks each for `_mock_name`) must not import.
        if name.startswith("_") and name != "__version__":
            raise AttributeError(name)
        value = getattr(import_module(self.__name__), name)
        setattr(self, name, value)  # the next access is as fast as with the module itself
        return value

    def __reduce__(self) -> tuple[Any, ...]:
        return Late, (self.__name__,)

    def __repr__(self) -> str:
        return f"<late module {self.__name__}>"


class custom_vjp:
    """`jax.custom_vjp`, applied when the function is first called."""

    def __init__(self, function: Callable[..., Any], nondiff_argnums: tuple[int, ...] = ()) -> None:
        update_wrapper(self, function)
        self._function, self._fixed = function, nondiff_argnums

    def defvjp(self, forward: Callable[..., Any], back: Callable[..., Any]) -> None:
        """Say what the gradient is, as with JAX's own."""
        self._forward, self._back = forward, back

    @cached_property
    def _applied(self) -> Any:
        found = jax.custom_vjp(self._function, nondiff_argnums=self._fixed)
        found.defvjp(self._forward, self._back)
        return found

    def __call__(self, *args: Any) -> Any:
        return self._applied(*args)


if TYPE_CHECKING:
    import jax
    import jax.numpy as jnp
    import optax
    import scipy
    from jax import lax
else:
    jax, jnp, lax = map(Late, ("jax", "jax.numpy", "jax.lax"))
    optax, scipy = map(Late, ("optax", "scipy"))

__all__ = ["Late", "custom_vjp", "jax", "jnp", "lax", "optax", "scipy"]
