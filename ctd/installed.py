"""The installed packages: the version of ctd, the packages that can be imported, and the command that adds those of an extra."""

import re
import shlex
import sys
from importlib import import_module
from importlib.metadata import PackageNotFoundError, entry_points, requires, version
from importlib.util import find_spec
from pkgutil import iter_modules

DISTRIBUTION = "ctd-jobs"
"""The name by which installers know ctd. On PyPI `ctd` is a package of oceanographers."""


NO_PLUGIN = (
    "it needs its plugin for GPUs (`uv pip install 'jax[cuda13]'` beside ctd) and the node's driver"
)
"""The advice where JAX sees no GPU."""


def gpu_plugins() -> list[str]:
    """Return the names of JAX's plugins that are installed, such as xla_cuda13; without one it computes on the CPU."""
    # A namespace package, where plugins may lie that are no distributions.
    spec = find_spec("jax_plugins")
    folders = spec.submodule_search_locations or [] if spec else []
    names = {module.name for module in iter_modules(folders)}
    return sorted(names | {plugin.name for plugin in entry_points(group="jax_plugins")})


def version_of(package: str) -> str:
    """Return the version of an installed distribution, or of `ctd`. Raises PackageNotFoundError."""
    return version(DISTRIBUTION if package == "ctd" else package)


def why_not(module: str) -> str | None:
    """Why a module cannot be imported, as words that follow its name: "" if it is not installed; None if it can.

    >>> why_not("math"), why_not("no_such_package")
    (None, '')
    """
    if find_spec(module) is None:
        return ""
    try:
        import_module(module)
    except Exception as error:  # a library may fail in any way while it is loaded
        cause = " ".join(str(error).split())[:200]
        return f", which is installed but cannot be imported ({type(error).__name__}: {cause})"
    return None


def how_to_install(extra: str, again: bool = False) -> str:
    """Return the command that adds the packages of an extra of ctd to the Python that is running.

    The command names the packages, since an installer that is asked for the extra would look for ctd in an index.

    again: they are installed, but broken.
    """
    try:
        lines = requires(DISTRIBUTION) or []
    except PackageNotFoundError:  # a source tree that was not installed
        lines = []
    requirements = [line.partition(";")[0].strip() for line in lines if re.search(rf"extra == .{extra}\b", line)]  # fmt: skip
    return (
        install(*requirements, again=again)
        if requirements
        else f"install the extra {extra!r} of ctd"
    )


def install(*packages: str, again: bool = False) -> str:
    """Return the command that adds packages to the Python that is running."""
    python = shlex.quote(sys.executable)
    pip = f"{python} -m pip install" if find_spec("pip") else f"uv pip install --python {python}"
    return f"{pip}{' --force-reinstall' if again else ''} {shlex.join(packages)}"
