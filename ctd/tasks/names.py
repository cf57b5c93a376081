"""Tasks by name: ctd's own, or a class of yours by its dotted path."""

from typing import Annotated

from pydantic import BeforeValidator, SerializeAsAny, ValidationError, WithJsonSchema
from pydantic.json_schema import JsonSchemaValue

from ctd.dotted import load
from ctd.tasks.chaotic import ChaoticGenerator
from ctd.tasks.decisions import Mante, MatchToSample, RandomDots, Romo
from ctd.tasks.flipflop import FlipFlop, NBitFlipFlop
from ctd.tasks.recorded import Recorded
from ctd.tasks.task import Task
from ctd.tasks.white_noise import ContextualIntegrator, Decision, Integrator
from ctd.tasks.yang import Yang
from ctd.words import did_you_mean, faults

TASKS: dict[str, type[Task]] = {
    task.name: task
    for task in (
        Integrator, Decision, ContextualIntegrator, FlipFlop, NBitFlipFlop, ChaoticGenerator, RandomDots, Romo, Mante,
        MatchToSample, Yang, Recorded,
    )
}  # fmt: skip

NAMES = f"{', '.join(TASKS)}, or the dotted path of a class of your own"
"""The task names that a job file may give, for descriptions and errors."""


def get_task(task: object) -> Task:
    """Make a task from its name and parameters.

    >>> get_task("decision").n_steps
    25
    >>> get_task({"name": "flipflop", "n_bit": 2})
    Traceback (most recent call last):
        ...
    ValueError: task flipflop: unknown parameter n_bit; did you mean 'n_bits'?

    Args:
        task: a name of `TASKS`, the dotted path of a class of yours, a mapping of `name` and parameters, or a `Task`, which is
            returned as it is.

    Returns:
        The task.

    Raises:
        ValueError: there is no such task or parameter, or a value is out of its range; the text names the nearest valid name.
    """
    if isinstance(task, Task):
        return task
    fields = {"name": task} if isinstance(task, str) else task
    if not isinstance(fields, dict) or not isinstance(fields.get("name"), str):
        several = "; `sweep: {grid: {task: [...]}}` compares several" * isinstance(task, list)
        raise ValueError(
            f"{task!r:.60} given; expected the name of a task, or a mapping of its name and parameters{several}"
        )
    name = fields["name"]
    cls = TASKS.get(name) or _own_class(name)
    try:
        return cls.model_validate({k: v for k, v in fields.items() if k != "name"})
    except ValidationError as error:
        raise ValueError(f"task {name}: {faults(error, cls.model_fields)}") from None


def _own_class(name: str) -> type[Task]:
    module, _, attribute = name.rpartition(".")
    if not module:
        raise ValueError(
            f"there is no task {name!r}{did_you_mean(name, TASKS)}; the tasks are {NAMES}"
        )
    if attribute in ("h5", "hdf5"):
        raise ValueError(f"task {name}: a file of trials is `task: file, trials: {name}`")
    cls = load(name, f"task {name}")
    if not (isinstance(cls, type) and issubclass(cls, Task)):
        raise ValueError(
            f"task {name}: {module} has no class {attribute} derived from ctd.tasks.Task"
        )
    return cls


def _schema() -> JsonSchemaValue:
    """JSON Schema of the argument of `get_task`."""
    # A name alone, one of ctd's tasks with its parameters, or a class of the user's with any parameters.
    options: list[JsonSchemaValue] = [{"type": "string"}]
    for name, cls in TASKS.items():
        fields = cls.model_json_schema(mode="validation")
        fields["properties"] = {"name": {"const": name}, **fields["properties"]}
        options.append(fields | {"required": ["name"]})
    own_class = {"name": {"type": "string", "pattern": r"\."}}
    options.append({"type": "object", "properties": own_class, "required": ["name"]})
    return {"anyOf": options}


# pydantic stores the fields of the declared class, here those of Task; SerializeAsAny stores all fields of the given one.
AnyTask = Annotated[SerializeAsAny[Task], BeforeValidator(get_task), WithJsonSchema(_schema())]
"""The type of a field that holds a task."""
