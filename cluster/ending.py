"""A user's own command that is called when a run ends: a mail, a message, the next step.

    ~/.config/ctd/settings.yaml          on_end: 'curl -d "$CTD_STORE: $CTD_ENDED" https://ntfy.sh/my-topic'

It stands in the user's settings and not in the job file: whoever sends a job file sends no command with it.
"""

import os
import subprocess
from pathlib import Path

import yaml
from pydantic import BaseModel, ConfigDict, Field, ValidationError

from cluster.profiles import profiles_folder
from jobs.errors import JobError, explain

PATIENCE_S = 60
"""How long the command may take: a run that has ended should not hang at a mail server."""


class Settings(BaseModel):
    """What a user has chosen for all jobs."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    on_end: str | None = Field(None, description="shell command that is called when a run ends")


def settings_file() -> Path:
    """Return where this user's settings are, whether or not there are any."""
    return profiles_folder().parent / "settings.yaml"


def read_settings() -> Settings:
    """Return this user's settings; JobError, naming file and field, if they are not valid."""
    path = settings_file()
    try:
        content = yaml.safe_load(path.read_text()) or {}
        return Settings.model_validate(content)
    except FileNotFoundError:
        return Settings()
    except ValidationError as error:
        raise JobError(explain(error, str(path), {(): Settings.model_fields})) from None
    except (OSError, ValueError, yaml.YAMLError) as error:
        raise JobError(f"{path}: cannot be read as YAML: {error}") from None


def call_on_end(settings: Settings, store: str, ended: str, told: str) -> str | None:
    """Call the user's command; return what went wrong with it, or None.

    Args:
        store: the store's address, for the command as $CTD_STORE.
        ended: $CTD_ENDED: "done", "failed" (a shard or item failed), "stopped", or "error" (the run broke off).
        told: $CTD_TOLD: one line for people.
    """
    if settings.on_end is None:
        return None
    environment = os.environ | {"CTD_STORE": store, "CTD_ENDED": ended, "CTD_TOLD": told}
    try:
        done = subprocess.run(  # noqa: S602  the user's own command
            settings.on_end, shell=True, env=environment, stdin=subprocess.DEVNULL,
            capture_output=True, text=True, check=False, timeout=PATIENCE_S,
        )  # fmt: skip
    except subprocess.TimeoutExpired:
        return f"on_end: took more than {PATIENCE_S} s and was ended: {settings.on_end}"
    if done.returncode == 0:
        return None
    said = (done.stderr or done.stdout).strip().splitlines()
    return f"on_end: exit code {done.returncode}: {settings.on_end}" + (
        f": {said[-1]}" if said else ""
    )
