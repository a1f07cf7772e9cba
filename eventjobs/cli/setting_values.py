"""The settings as `eventjobs config` shows them: value, default and source of each."""

import os
import re
import sys
from collections.abc import Iterator
from dataclasses import asdict, dataclass
from typing import Any, TypeVar

from pydantic import SecretStr, ValidationError
from rich.text import Text
from typer.core import TyperGroup, TyperOption

from eventjobs.cli.output import emit, print_table
from eventjobs.client.settings import ClientSettings
from eventjobs.demo.settings import DemoSettings
from eventjobs.errors import InvalidInput
from eventjobs.settings import (
    PREFIX,
    WITHOUT_EFFECT,
    EnvironmentSettings,
    Settings,
    variable_in_effect,
    variables_of,
)

MASKED = "********"

S = TypeVar("S", bound=EnvironmentSettings)


class WrongSettings(InvalidInput, code="settings"):
    """A setting has a value that it cannot have."""


@dataclass(frozen=True)
class SettingValue:
    """One setting. *source* is `default`, an option, or the variable that is in effect."""

    group: str
    name: str
    value: Any
    default: Any
    source: str
    variables: list[str]
    description: str


def print_settings(root: TyperGroup, options: dict[str, Any], *, json: bool) -> None:
    """Print what serve would run with, given these *options* of it. Raises WrongSettings."""
    values = all_settings(root, options)
    if json:
        for each in values:
            emit(asdict(each))
    else:
        head = ("setting", "value", "default", "from", "")
        print_table(head, map(_row, values))
    for line in notes_without_effect(values):
        print(f"note: {line}", file=sys.stderr)


def all_settings(root: TyperGroup, options: dict[str, Any]) -> list[SettingValue]:
    """Every setting, group by group. Raises WrongSettings."""
    return [
        *_values_of("service", Settings, options),
        *_values_of("demo", DemoSettings, {}),
        *_values_of("client", ClientSettings, {}),
        *_command_line_values(root),
    ]


def read_settings(settings: type[S], options: dict[str, Any]) -> S:
    """*settings* from options and the environment. Raises WrongSettings, with the wrong names."""
    try:
        return settings(**options)
    except ValidationError as error:
        wrong = [
            f"{name}: {each['msg']} ({_source(settings, name, options)})"
            for each in error.errors(include_url=False)
            for name in map(str, each["loc"][:1])
        ]
        raise WrongSettings("; ".join(wrong)) from error


def _values_of(
    group: str, settings: type[EnvironmentSettings], options: dict[str, Any]
) -> Iterator[SettingValue]:
    current = read_settings(settings, options)
    for name, field in settings.model_fields.items():
        yield SettingValue(
            group,
            name,
            _json_value(getattr(current, name)),
            _json_value(field.get_default(call_default_factory=True)),
            _source(settings, name, options),
            variables_of(settings, name),
            field.description or "",
        )


def _command_line_values(root: TyperGroup) -> Iterator[SettingValue]:
    """The options of all commands that can be set by a variable, each once."""
    seen = set()
    for command in root.commands.values():
        for option in command.params:
            if not isinstance(option, TyperOption) or not option.envvar or option.name in seen:
                continue
            seen.add(option.name)
            names = [option.envvar] if isinstance(option.envvar, str) else list(option.envvar)
            variable = next((each for each in names if os.environ.get(each)), None)
            value = os.environ[variable] if variable else option.default
            yield SettingValue(
                "command line",
                option.name or "",
                _json_value(value),
                _json_value(option.default),
                variable or "default",
                names,
                option.help or "",
            )


def notes_without_effect(values: list[SettingValue]) -> Iterator[str]:
    """A line for each variable that is set and changes nothing, with the reason."""
    for name, why in WITHOUT_EFFECT.items():
        if os.environ.get(name):
            yield f"{name} is accepted and changes nothing: {why}"
    variables = {variable for each in values for variable in each.variables}
    for name in sorted(os.environ):
        if name.startswith(PREFIX) and name not in variables:
            yield f"{name} is set, and there is no such setting"


def _source(settings: type[EnvironmentSettings], name: str, options: dict[str, Any]) -> str:
    return f"--{name}" if name in options else variable_in_effect(settings, name) or "default"


def _json_value(value: Any) -> Any:
    """*value* as JSON holds it. Secrets, and passwords in addresses, are masked."""
    if isinstance(value, SecretStr):
        return MASKED if value.get_secret_value() else ""
    if value is None or isinstance(value, bool | int | float):
        return value
    if isinstance(value, dict):
        return ",".join(f"{name}={each}" for name, each in value.items())
    if isinstance(value, tuple):
        return ",".join(map(str, value))
    return re.sub(r"(?<=://)[^/@\s]+(?=@)", MASKED, str(value))


def _row(setting: SettingValue) -> list[Text]:
    """A row of the table; bold if the value is not the default."""
    value, default = (
        "-" if each is None else str(each) for each in (setting.value, setting.default)
    )
    style = "bold" if setting.source != "default" else ""
    cells = (setting.name, value, default, setting.source, setting.description)
    return [Text(each, style) for each in cells]
