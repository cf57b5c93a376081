"""The JSON Schema of job files."""

from typing import Any

from ctd.kernel import Kernel
from jobs.spec.job import JobSpec
from jobs.spec.reductions import LIST
from jobs.spec.search import METHODS

DIALECT = "https://json-schema.org/draft/2020-12/schema"
"""The version of JSON Schema that pydantic writes."""


def job_schema(kernel: Kernel | None = None) -> dict[str, Any]:
    """The JSON Schema of a job file; with a kernel it also covers that kernel's `params` and `gather`.

    >>> sorted(job_schema()["properties"])[:3]
    ['cluster', 'gather', 'keep_bits']
    """
    schema = {"$schema": DIALECT, **JobSpec.model_json_schema()}
    if kernel is not None:
        for field, model in (("params", kernel.Params), ("gather", kernel.Options)):
            inner = model.model_json_schema()
            if field == "gather":
                reductions = LIST.json_schema(ref_template="#/$defs/{model}")
                inner.setdefault("$defs", {}).update(reductions.pop("$defs"))
                inner.setdefault("properties", {})["reductions"] = reductions
            schema["$defs"].update(inner.pop("$defs", {}))
            schema["properties"][field] = inner
        if kernel.presets:
            schema["properties"]["search"]["anyOf"].append(_preset_schema(kernel))
    return schema


def _preset_schema(kernel: Kernel) -> dict[str, Any]:
    """The schema of a search by one of the kernel's presets, whose other fields may be left out."""
    names = [{"const": name, "description": p.reason} for name, p in kernel.presets.items()]
    fields = {
        k: v for m in METHODS.values() for k, v in m.model_json_schema()["properties"].items()
    }
    given = {name: {"description": entry.get("description", "")} for name, entry in fields.items()}
    return {
        "type": "object",
        "properties": {"preset": {"oneOf": names}, **given},
        "required": ["preset"],
        "additionalProperties": False,
    }
