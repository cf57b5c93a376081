"""What users build on, as lines of text: functions and classes that they import, commands, fields of files, results of kernels."""

import ast
import dataclasses
import importlib
import inspect
import textwrap

import typer.main
from pydantic import BaseModel

from cluster.cli.kernels import contents
from cluster.cli.main import app
from cluster.profiles import LocalProfile, RayProfile, SlurmProfile
from ctd.catalogue import kernel_names, load_kernel
from ctd.kernel import field_kinds
from jobs.spec.job import JobSpec
from jobs.spec.run import RunSettings

PACKAGES = {
    "jobs": (), "cluster": ("Job", "Submitted"),
    "ctd.fixed_points": (), "ctd.cells": (), "ctd.tasks": (), "ctd.lfads": (), "ctd.similarity": (), "ctd.esn": (), "ctd.weights": (),
    "ctd.kernel": ("one_shot",), "ctd.batch": ("run_items",), "jobs.query.tree": ("StoreTree",),
    "ctd.lfads.distributions": (), "ctd.lfads.metrics": (), "ctd.esn.series": (),
}  # fmt: skip
"""Package -> the names that a user imports from it; (): all that it exports."""

OF_KERNELS = {
    "ctd.kernel": ("Kernel", "Params", "Var", "Outcome", "Display", "Tables", "Batching", "one_shot", "inputs_of", "static_of", "traced_of"),
    "ctd.contract": ("evaluate",), "ctd.data": ("read_arrays", "read_hdf5", "write_hdf5"), "ctd.plots": ("Plot", "Axis", "Lines", "Points", "Band", "Bars", "Image"),
}  # fmt: skip
"""The same of what a kernel of one's own is made with (docs/own-kernel.md)."""


def exported(packages):
    """Yield (name, function or class) for each name that users import from packages."""
    for package, names in packages.items():
        module = importlib.import_module(package)
        for name in names or getattr(module, "__all__", vars(module)):
            thing = getattr(module, name)
            if not name.startswith("_") and getattr(thing, "__module__", "").startswith(package):
                yield f"{package}.{name}", thing


def functions(packages):
    """Yield (name, function) for each function, and each method that does not override another one."""
    for name, thing in exported(packages):
        if inspect.isfunction(inspect.unwrap(thing)):
            yield name, inspect.unwrap(thing)
        elif inspect.isclass(thing):
            inherited = {method for base in thing.__mro__[1:] for method in vars(base)}
            for method in vars(thing).keys() - inherited - set(fields_of(thing)):
                if not method.startswith("_") and inspect.isfunction(getattr(thing, method)):
                    yield f"{name}.{method}", getattr(thing, method)


def signature(function):
    """A function's parameters and result as its source has them: no version of a library prints them otherwise."""
    (node,) = ast.parse(textwrap.dedent(inspect.getsource(function))).body
    returns = f" -> {ast.unparse(node.returns)}" if node.returns else ""
    return f"({ast.unparse(node.args)}){returns}"


def fields_of(thing):
    """The names of a class's fields."""
    return [field.partition(" ")[0] for field in fields(thing)]


def fields(thing):
    """Yield `NAME = DEFAULT` for each field of a class."""
    if issubclass(thing, BaseModel):
        for name, info in thing.model_fields.items():
            default = info.get_default(call_default_factory=True, validated_data={})
            yield name if info.is_required() else f"{name} = {text(default)}"
    elif dataclasses.is_dataclass(thing):
        for field in dataclasses.fields(thing):
            missing = dataclasses.MISSING
            factory = field.default_factory
            default = field.default if factory is missing else factory()
            yield field.name if default is missing else f"{field.name} = {text(default)}"
    elif hasattr(thing, "_fields"):
        for name in thing._fields:
            defaults = thing._field_defaults
            yield f"{name} = {text(defaults[name])}" if name in defaults else name


def text(default):
    """A default in one line; a function by its name, since its address differs in each process."""
    return default.__qualname__ if inspect.isfunction(default) else repr(default)


def in_python():
    """The functions, methods and fields that users import."""
    packages = [PACKAGES, OF_KERNELS]
    lines = [f"{name}{signature(f)}" for part in packages for name, f in functions(part)]
    classes = [pair for part in packages for pair in exported(part) if inspect.isclass(pair[1])]
    lines += [f"{name}: {field}" for name, thing in classes for field in fields(thing)]
    return sorted(set(lines))


def in_commands():
    """The arguments and options of each command."""
    group = typer.main.get_command(app)
    context = group.make_context("ctd", ["--help"], resilient_parsing=True)
    lines = []
    for name in group.list_commands(context):
        own = group.get_command(context, name).make_context(name, [], resilient_parsing=True)
        for param in own.command.params:
            words = " ".join([*param.opts, *param.secondary_opts])
            repeated = ", may be repeated" if param.multiple or param.nargs == -1 else ""
            lines.append(f"ctd {name} {words}{', required' * param.required}{repeated}")
    return sorted(lines)


def in_files():
    """The fields of job files, profiles and kernels."""
    models = {
        "job": JobSpec,
        "run": RunSettings,
        "local": LocalProfile,
        "ray": RayProfile,
        "slurm": SlurmProfile,
    }
    lines = [f"{name}.{field}" for name, model in models.items() for field in fields(model)]
    for name in kernel_names():
        params = load_kernel(name).Params
        kinds = field_kinds(params)
        for field in fields(params):
            lines.append(f"{name}.{field}, {kinds[field.partition(' ')[0]].value}")
    return lines


def in_stores():
    """The results, tables and outcomes of each kernel."""
    return [
        f"{name} {title}: {', '.join(filter(None, table['name']))}"
        for name in kernel_names()
        for title, table in contents(load_kernel(name)).items()
    ]


def lines():
    """All of them."""
    return [*in_python(), *in_commands(), *in_files(), *in_stores()]
