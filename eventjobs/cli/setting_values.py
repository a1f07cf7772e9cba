"""What `eventjobs config` shows: every setting, its value, and where the value came from."""

import os
import re
import sys
from collections.abc import Iterator
from dataclasses import asdict, dataclass
from typing import Any, TypeVar

import orjson
from pydantic import SecretStr, ValidationError
from rich.console import Console
from rich.table import Table
from typer.core import TyperGroup, TyperOption

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

Read = TypeVar("Read", bound=EnvironmentSettings)


class WrongSettings(InvalidInput):
    """A setting has a value that it cannot have."""

    code = "settings"


@dataclass(frozen=True)
class SettingValue:
    """One setting as it is shown. *source* is `default`, an option, or a variable."""

    group: str
    name: str
    value: Any
    default: Any
    source: str
    variables: list[str]
    description: str


def show(root: TyperGroup, given: dict[str, Any], *, json: bool) -> None:
    """Print what serve would run with, given the options *given*. Raises WrongSettings."""
    knobs = everything(root, given)
    if json:
        for each in knobs:
            print(orjson.dumps(asdict(each)).decode())
    else:
        _print_table(knobs)
    for line in without_effect(knobs):
        print(f"note: {line}", file=sys.stderr)


def everything(root: TyperGroup, given: dict[str, Any]) -> list[SettingValue]:
    """All there is, in the order of the groups. Raises WrongSettings."""
    return [
        *of_settings("service", Settings, given),
        *of_settings("demo", DemoSettings, {}),
        *of_commands(root),
    ]


def read(settings: type[Read], given: dict[str, Any]) -> Read:
    """*settings* from options and the environment. Raises WrongSettings, naming what is wrong."""
    try:
        return settings(**given)
    except ValidationError as error:
        wrong = [
            f"{name}: {each['msg']} ({_source(settings, name, given)})"
            for each in error.errors(include_url=False)
            for name in map(str, each["loc"][:1])
        ]
        raise WrongSettings("; ".join(wrong)) from error


def of_settings(
    group: str, settings: type[EnvironmentSettings], given: dict[str, Any]
) -> Iterator[SettingValue]:
    """The knobs of *settings*, made with the options *given*. Raises WrongSettings."""
    made = read(settings, given)
    for name, field in settings.model_fields.items():
        yield SettingValue(
            group,
            name,
            _shown(getattr(made, name)),
            _shown(field.get_default(call_default_factory=True)),
            _source(settings, name, given),
            variables_of(settings, name),
            field.description or "",
        )


def of_commands(root: TyperGroup) -> Iterator[SettingValue]:
    """The options of all commands that can be set by a variable, each once."""
    seen = set()
    for command in root.commands.values():
        for option in command.params:
            if not isinstance(option, TyperOption) or not option.envvar or option.name in seen:
                continue
            seen.add(option.name)
            names = [option.envvar] if isinstance(option.envvar, str) else list(option.envvar)
            found = next((each for each in names if os.environ.get(each)), None)
            value = os.environ[found] if found else option.default
            yield SettingValue(
                "command line",
                option.name or "",
                _shown(value),
                _shown(option.default),
                found or "default",
                names,
                option.help or "",
            )


def without_effect(knobs: list[SettingValue]) -> Iterator[str]:
    """What is set in the environment and changes nothing, and why."""
    for name, why in WITHOUT_EFFECT.items():
        if os.environ.get(name):
            yield f"{name} is accepted and changes nothing: {why}"
    known = {variable for each in knobs for variable in each.variables}
    for name in sorted(os.environ):
        if name.startswith(PREFIX) and name not in known:
            yield f"{name} is set, and there is no such setting"


def _source(settings: type[EnvironmentSettings], name: str, given: dict[str, Any]) -> str:
    return f"--{name}" if name in given else variable_in_effect(settings, name) or "default"


def _shown(value: Any) -> Any:
    """*value* as JSON holds it, without what nobody should read over a shoulder."""
    if isinstance(value, SecretStr):
        return MASKED if value.get_secret_value() else ""
    if value is None or isinstance(value, bool | int | float):
        return value
    if isinstance(value, dict):
        return ",".join(f"{name}={each}" for name, each in value.items())
    return re.sub(r"(?<=://)[^/@\s]+(?=@)", MASKED, str(value))


def _print_table(knobs: list[SettingValue]) -> None:
    """A table in a terminal, tab-separated values without a head elsewhere."""
    rows = [
        (each.name, _word(each.value), _word(each.default), each.source, each.description)
        for each in knobs
    ]
    if not sys.stdout.isatty():
        for row in rows:
            print("\t".join(row))
        return
    grid = Table("setting", "value", "default", "from", "", box=None, header_style="bold")
    for row in rows:
        changed = "bold" if row[3] != "default" else None
        grid.add_row(*row, style=changed)
    Console().print(grid)


def _word(value: Any) -> str:
    return "-" if value is None else str(value)
