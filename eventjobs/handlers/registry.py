"""Handlers and completion hooks by job type, and schedules by name."""

import builtins
from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass
from functools import cached_property
from types import MappingProxyType, ModuleType
from typing import Annotated, Any, Literal

from pydantic import BaseModel, Field, ValidationError

from eventjobs.domain.limits import UNLIMITED, ConcurrencyLimits, HandlerLimits
from eventjobs.domain.validation import (
    STRICT,
    Attempts,
    Delay,
    Name,
    Names,
    QueueName,
    Seconds,
    field_errors,
)
from eventjobs.errors import InvalidInput, UnknownType
from eventjobs.handlers.hooks import CompletionHook
from eventjobs.handlers.schedule import CronSchedule

#: loop, thread, process: run here. external: an HTTP service runs it. remote: workers run it.
Mode = Literal["loop", "thread", "process", "external", "remote"]

#: For an attempt that a shutdown cuts off: "release" queues the job again, "fail" fails it.
OnShutdown = Literal["release", "fail"]


@dataclass(frozen=True)
class ExternalService:
    """The HTTP service that runs the jobs of a type, and its response timeout in seconds."""

    dispatch_url: str
    answer_timeout_s: float


@dataclass(frozen=True)
class Handler:
    """The function of a job type, where it runs, and the defaults of its submissions."""

    type: str
    function: Callable[..., Any]
    model: "builtins.type[BaseModel] | None"
    mode: Mode
    max_attempts: int | None = None
    timeout_s: float | None = None
    stall_timeout_s: float | None = None
    retry_delay_s: float | None = None
    ttl_s: float | None = None
    limits: HandlerLimits = UNLIMITED
    external: ExternalService | None = None
    on_shutdown: OnShutdown = "release"
    sensitive: tuple[str, ...] = ()

    @cached_property
    def defaults(self) -> Mapping[str, Any]:
        """Values of fields that a submission may leave out."""
        names = ("timeout_s", "stall_timeout_s", "retry_delay_s", "ttl_s")
        values = {name: value for name in names if (value := getattr(self, name)) is not None}
        return MappingProxyType(values)

    def parse(self, payload: Any) -> Any:
        """*payload* as the handler's model, or unchanged without one. Raises InvalidInput."""
        if self.model is None:
            return payload
        try:
            return self.model.model_validate({} if payload is None else payload)
        except ValidationError as error:
            wrong = field_errors(error, "payload")
            raise InvalidInput(f"the payload does not fit {self.type}", wrong) from error


class OptionsModel(BaseModel):
    """Checks the options of a handler."""

    model_config = STRICT

    type: Name
    max_attempts: Attempts | None = None
    timeout_s: Seconds | None = None
    stall_timeout_s: Seconds | None = None
    retry_delay_s: Delay | None = None
    ttl_s: Delay | None = None
    queue: QueueName | None = None
    concurrency: int | None = None
    key_concurrency: int | None = None
    rate: str | None = None
    process: bool = False
    model: builtins.type[BaseModel] | None = None
    dispatch_url: str = Field("/", max_length=2000, pattern=r"^(https?://[^/]|/)")
    answer_timeout_s: Seconds = 30.0
    sensitive: Annotated[Names, Field(max_length=100)] = ()


#: What programs declare.
Part = Handler | CronSchedule | CompletionHook


class HandlerRegistry:
    """The handlers of one service, by type, their completion hooks, and its schedules."""

    def __init__(self, parts: Iterable[Part] = ()) -> None:
        self._by_type: dict[str, Handler] = {}
        self._by_name: dict[str, CronSchedule] = {}
        self._hooks: dict[str, dict[str, CompletionHook]] = {}
        for each in parts:
            self._add(each)
        self._hook_names = {type: tuple(hooks) for type, hooks in self._hooks.items()}

    def _add(self, part: Part) -> None:
        match part:
            case CronSchedule(name=name):
                if name in self._by_name:
                    raise ValueError(f"two schedules are called {name!r}")
                self._by_name[name] = part
            case CompletionHook(type=type, name=name):
                hooks = self._hooks.setdefault(type, {})
                if name in hooks:
                    raise ValueError(f"two completion hooks of {type!r} are called {name!r}")
                hooks[name] = part
            case _:
                if part.type in self._by_type:
                    raise ValueError(f"two handlers for {part.type!r}")
                self._by_type[part.type] = part

    @classmethod
    def of(cls, holder: object) -> "HandlerRegistry":
        """From a module, an iterable of parts, or one alone. Raises TypeError."""
        if isinstance(holder, HandlerRegistry):
            return holder
        if isinstance(holder, Part):
            return cls([holder])
        if isinstance(holder, ModuleType):
            return cls(each for each in vars(holder).values() if isinstance(each, Part))
        if isinstance(holder, Iterable):
            return cls(holder)
        raise TypeError(f"{holder!r} holds no handlers")

    def with_defaults(self, more: Iterable[Handler]) -> "HandlerRegistry":
        """A registry with the handlers of *more* for types that have none here."""
        types = self._by_type | {each.type: each for each in more} | self._by_type
        return HandlerRegistry([*types.values(), *self.schedules, *self.hooks])

    def with_hooks(self, more: Iterable[CompletionHook]) -> "HandlerRegistry":
        """A registry with *more* hooks. Raises ValueError for two of one name."""
        return HandlerRegistry([*self.parts, *more])

    @property
    def parts(self) -> list[Part]:
        return [*self, *self.schedules, *self.hooks]

    @property
    def schedules(self) -> list[CronSchedule]:
        return list(self._by_name.values())

    @property
    def hooks(self) -> list[CompletionHook]:
        return [hook for hooks in self._hooks.values() for hook in hooks.values()]

    def hook_names(self, type: str) -> tuple[str, ...]:
        """The names of the completion hooks of *type*."""
        return self._hook_names.get(type, ())

    def __iter__(self) -> Iterator[Handler]:
        return iter(self._by_type.values())

    def __len__(self) -> int:
        return len(self._by_type)

    def limits(self, types: Mapping[str, int], queues: Mapping[str, int]) -> ConcurrencyLimits:
        """The handlers' limits, overridden by those of *types*, and the limits of *queues*."""
        limits = {each.type: each.limits for each in self}
        own = {type: each.concurrency for type, each in limits.items() if each.concurrency}
        keys = {type: each.key_concurrency for type, each in limits.items() if each.key_concurrency}
        rates = {type: each.rate for type, each in limits.items() if each.rate}
        return ConcurrencyLimits(own | dict(types), queues, keys, rates)

    def types(self) -> list[str]:
        return list(self._by_type)

    def get(self, type: str) -> Handler:
        """The handler of *type*. Raises UnknownType."""
        if not issubclass(builtins.type(type), str):
            wrong = [{"field": "type", "message": "it is a string"}]
            raise UnknownType("the type of a job is a string", wrong)
        try:
            return self._by_type[type]
        except KeyError:
            types = ", ".join(sorted(self._by_type)) or "none"
            raise UnknownType(
                f"no handler for type {type!r}; there are: {types}",
                [{"field": "type", "message": "no handler is registered for it"}],
            ) from None
