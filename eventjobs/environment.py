"""Settings that are read from the environment, and from which variable each came."""

import os
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from pydantic.fields import FieldInfo
from pydantic_settings import (
    BaseSettings,
    EnvSettingsSource,
    PydanticBaseSettingsSource,
    SettingsConfigDict,
)

PREFIX = "EVENTJOBS_"


@dataclass(frozen=True)
class Also:
    """Another variable for a setting, so that a deployment can keep the name it has."""

    variable: str


class FromEnvironment(BaseSettings):
    """Read from arguments, then from EVENTJOBS_*, then from the other names of a setting.

    A variable that is set to nothing counts as not set.
    """

    model_config = SettingsConfigDict(env_prefix=PREFIX, env_ignore_empty=True, extra="forbid")

    @classmethod
    def settings_customise_sources(
        cls,
        settings_cls: type[BaseSettings],
        init_settings: PydanticBaseSettingsSource,
        env_settings: PydanticBaseSettingsSource,
        dotenv_settings: PydanticBaseSettingsSource,
        file_secret_settings: PydanticBaseSettingsSource,
    ) -> tuple[PydanticBaseSettingsSource, ...]:
        return init_settings, env_settings, _OtherNames(settings_cls)


class _OtherNames(EnvSettingsSource):
    """The values of Also variables, for the fields that name one."""

    def get_field_value(self, field: FieldInfo, field_name: str) -> tuple[Any, str, bool]:
        for each in _also(field):
            if (value := self.env_vars.get(each.lower())) is not None:
                return value, field_name, False
        return None, field_name, False


def working_directory() -> Path | None:
    """The directory that relative paths begin in; None when it was removed."""
    try:
        return Path.cwd()
    except FileNotFoundError:
        return None


def variables(settings: type[FromEnvironment], name: str) -> list[str]:
    """The variables that set *name*, the one that wins first."""
    return [PREFIX + name.upper(), *_also(settings.model_fields[name])]


def set_by(settings: type[FromEnvironment], name: str) -> str | None:
    """Which of them does, if any."""
    present = {variable.upper() for variable, value in os.environ.items() if value}
    return next((each for each in variables(settings, name) if each in present), None)


def _also(field: FieldInfo) -> list[str]:
    return [each.variable for each in field.metadata if isinstance(each, Also)]
