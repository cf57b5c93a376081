"""Presets: searches that a kernel declares by name. `search: {preset: NAME}` stands for fields of the job file.

    search: {preset: autolfads}                                      all fields as the kernel declares them
    search: {preset: autolfads, generations: 10}                     another number of generations
    search: {preset: autolfads, params: {dropout: {start: 0.1}}}     another start; the range is kept
    search: {preset: autolfads, params: {dropout: {uniform: [0, 0.3]}, kl_ic: null}}
                                                                     another range; one parameter less

Fields that the job gives replace those of the preset, also in `params` and `sweep`. A searched field that the job gives
in `params` or sweeps starts there. The store keeps the fields, not the name.
"""

from collections.abc import Mapping
from typing import Any

from ctd.kernel import Kernel
from jobs.errors import JobError, nearest
from jobs.search import METHODS
from jobs.spec.job import JobSpec
from jobs.spec.reductions import Listed

FORMS = ("uniform", "loguniform", "integers", "choice")


def expand_preset(content: dict[str, object], kernel: Kernel, location: str) -> dict[str, Any]:
    """Replace the preset in a job file's content by the fields that it stands for; content without a preset stays as it is.

    Raises JobError, which begins with `location`, if the kernel has no such preset.
    """
    preset_sections = meaning(content, kernel, location)
    if not preset_sections:
        return content
    expanded = {**content, "search": preset_sections["search"]}
    for section in ("params", "sweep"):
        job_section = content.get(section) or {}
        expanded[section] = (
            {**preset_sections.get(section, {}), **job_section}
            if isinstance(job_section, Mapping)
            else job_section
        )
    return expanded


def meaning(content: Mapping[str, object], kernel: Kernel, location: str) -> dict[str, Any]:
    """Return the sections of a job file with the fields that the job's preset adds; {} without a preset.

    Raises JobError as `expand_preset` does.
    """
    search = content.get("search")
    if not isinstance(search, Mapping) or "preset" not in search:
        return {}
    name = search["preset"]
    if not isinstance(name, str) or name not in kernel.display.presets:
        hint = nearest(str(name), kernel.display.presets) or ", it has none"
        raise JobError(
            f"{location}: search.preset: kernel {kernel.name} has no preset {name!r}{hint}"
        )
    preset = kernel.display.presets[name]
    params = content.get("params") or {}
    assert isinstance(params, Mapping)  # else jobs.pipeline.Stage has refused it
    sweep, preset_sweep = content.get("sweep") or {}, {}
    if isinstance(sweep, Mapping):
        preset_sweep = {k: v for k, v in preset.sweep.items() if k not in sweep}
        sweep = {**preset_sweep, **sweep}
    assigned = {*params, *_swept(sweep)}
    sections = {
        "params": {k: v for k, v in preset.params.items() if k not in assigned},
        "sweep": preset_sweep,
        "search": _search(preset.search, search, assigned),
    }
    return {section: fields for section, fields in sections.items() if fields}


def _search(
    preset: Mapping[str, Any], section: Mapping[str, Any], assigned: set[str]
) -> dict[str, Any]:
    """Return the section `search`: the preset's fields, replaced by those of the job's section.

    assigned: the fields with a value in `params` or `sweep`; they start there, and not at the preset's start.
    """
    fields = {**preset, **{k: v for k, v in section.items() if k not in ("preset", "params")}}
    laws = {name: dict(law) for name, law in preset.get("params", {}).items()}
    changes = section.get("params")
    # Validation of the job refuses params that are no mapping.
    if changes is not None and not isinstance(changes, Mapping):
        return fields | {"params": changes}
    for name in assigned & laws.keys():
        laws[name].pop("start", None)
    for name, law in (changes or {}).items():
        if law is None:
            laws.pop(name, None)
        elif isinstance(law, Mapping) and not any(form in law for form in FORMS):
            laws[name] = laws.get(name, {}) | dict(law)
        else:
            laws[name] = law
    return {k: v for k, v in fields.items() if v is not None} | ({"params": laws} if laws else {})


def _swept(sweep: object) -> set[str]:
    """The fields that a sweep names, as far as it is well formed; `a` for an inner field `a.b`."""
    parts = [
        part
        for part in (sweep if isinstance(sweep, list | tuple) else [sweep])
        if isinstance(part, Mapping)
    ]
    blocks = [part.get(block) for part in parts for block in ("grid", "zip", "random")]
    names = [name for block in blocks if isinstance(block, Mapping) for name in block]
    return {str(name).partition(".")[0] for name in names}


# --- the schema of job files ----------------------------------------------------------------------


def job_schema(kernel: Kernel | None = None) -> dict[str, Any]:
    """The JSON Schema of a job file; with a kernel it also covers that kernel's `params` and `gather`.

    >>> sorted(job_schema()["properties"])[:3]
    ['cluster', 'gather', 'keep_bits']
    """
    # The version of JSON Schema that pydantic writes.
    dialect = "https://json-schema.org/draft/2020-12/schema"
    schema = {"$schema": dialect, **JobSpec.model_json_schema()}
    if kernel is not None:
        for field, model in (("params", kernel.Params), ("gather", kernel.tables.Options)):
            inner = model.model_json_schema()
            if field == "gather":
                listed = Listed.model_json_schema()
                inner.setdefault("$defs", {}).update(listed["$defs"])
                inner.setdefault("properties", {}).update(listed["properties"])
            schema["$defs"].update(inner.pop("$defs", {}))
            schema["properties"][field] = inner
        if kernel.display.presets:
            schema["properties"]["search"]["anyOf"].append(_preset_schema(kernel))
    return schema


def _preset_schema(kernel: Kernel) -> dict[str, Any]:
    """The schema of a search by one of the kernel's presets, whose other fields may be left out."""
    names = [{"const": name, "description": p.reason} for name, p in kernel.display.presets.items()]
    fields = {
        k: v for m in METHODS.values() for k, v in m.model_json_schema()["properties"].items()
    }
    properties = {
        name: {"description": entry.get("description", "")} for name, entry in fields.items()
    }
    return {
        "type": "object",
        "properties": {"preset": {"oneOf": names}, **properties},
        "required": ["preset"],
        "additionalProperties": False,
    }
