"""The formats of settings that are more than a number or a text."""

import ipaddress
import re
from typing import Annotated, Any, Literal, TypeVar

import orjson
from pydantic import (
    AfterValidator,
    BaseModel,
    BeforeValidator,
    ConfigDict,
    Field,
    SecretStr,
    field_validator,
)
from pydantic_settings import NoDecode

#: RFC 7518, 3.2.
JWT_SECRET_BYTES_MIN = 32


def _parse_limits(value: object) -> object:
    """Limits by name from `a=2,b=5`, or from a JSON object for names with `=` or `,` in them."""
    if not isinstance(value, str):
        return value
    if value.lstrip().startswith("{"):
        return orjson.loads(value)
    pairs = [each.rpartition("=") for each in value.split(",") if each.strip()]
    return {name.strip(): number.strip() for name, _, number in pairs}


def _split(value: object) -> object:
    """The members of a list with commas."""
    if not isinstance(value, str):
        return value
    return [each.strip() for each in value.split(",") if each.strip()]


Item = TypeVar("Item")
#: A list with commas. NoDecode: pydantic-settings would accept only JSON.
ListWithCommas = Annotated[tuple[Item, ...], NoDecode, BeforeValidator(_split)]
Name = Annotated[str, Field(min_length=1)]
Names = ListWithCommas[Name]
LimitsByName = Annotated[
    dict[Name, Annotated[int, Field(ge=1)]], NoDecode, BeforeValidator(_parse_limits)
]
Network = ipaddress.IPv4Network | ipaddress.IPv6Network


def _parse_network(value: object) -> object:
    try:
        return ipaddress.ip_network(value) if isinstance(value, str) else value
    except ValueError as error:
        raise ValueError(f"{value!r} is no address or network: {error}") from error


def _check_host_name(value: str) -> str:
    name = value.lower().rstrip(".")
    if name != "*" and not re.fullmatch(r"\.?[a-z0-9_-]+(\.[a-z0-9_-]+)*", name):
        raise ValueError(f"{value!r} is no host name; a port is not part of it")
    return name


def split_address(address: str) -> tuple[str, int]:
    """The host and the port of `127.0.0.1:8000` or `[::1]:8000`. Raises ValueError."""
    match = re.fullmatch(r"(?:\[([0-9A-Fa-f:.]+)\]|([^\[\]:/@\s]+)):([0-9]{1,5})", address)
    if match is None or (port := int(match[3])) > 65_535:
        raise ValueError(f"{address!r} is no address like 127.0.0.1:8000 or [::1]:8000")
    return match[1] or match[2], port


def format_address(host: str, port: int) -> str:
    """The address as *split_address* reads it."""
    return f"[{host}]:{port}" if ":" in host else f"{host}:{port}"


def _check_address(value: str) -> str:
    return format_address(*split_address(value))


def _check_origin(value: str) -> str:
    """Browsers send an origin in lower case, and without the port that is the scheme's own."""
    origin = value.lower()
    if not re.fullmatch(r"[a-z][a-z0-9+.-]*://(\[[0-9a-f:.]+\]|[a-z0-9._-]+)(:[0-9]+)?", origin):
        raise ValueError(f"{value!r} is no origin like https://app.example.com")
    scheme = origin.partition("://")[0]
    return origin.removesuffix({"http": ":80", "https": ":443"}.get(scheme, ""))


Networks = ListWithCommas[Annotated[Network, BeforeValidator(_parse_network)]]
Addresses = ListWithCommas[Annotated[str, AfterValidator(_check_address)]]
HostNames = ListWithCommas[Annotated[str, AfterValidator(_check_host_name)]]
Origins = ListWithCommas[Annotated[str, AfterValidator(_check_origin)]]
#: Ends of file names, with the dot.
Suffixes = ListWithCommas[Annotated[str, Field(pattern=r"^\.[a-z0-9]+$")]]


RequestKindName = Literal["submit", "read", "stream", "work"]


def _parse_rates(value: object) -> object:
    """Rates by kind of request, from `submit=100/minute,read=1000/minute`."""
    if not isinstance(value, str):
        return value
    pairs = [each.partition("=") for each in value.split(",") if each.strip()]
    return {kind.strip(): rate.strip() for kind, _, rate in pairs}


_UNITS = {
    "second": 1,
    "minute": 60,
    "hour": 3_600,
    "day": 86_400,
    "month": 30 * 86_400,
    "year": 360 * 86_400,
}
_RATE = re.compile(
    rf"\s*([0-9]+)\s*(?:/|per)\s*([0-9]+)?\s*({'|'.join(_UNITS)})s?\s*", re.ASCII | re.IGNORECASE
)


def parse_rate(rate: str) -> tuple[int, int]:
    """The requests and the seconds of `100/minute` or `5 per 10 seconds`. Raises ValueError."""
    if (match := _RATE.fullmatch(rate)) is None:
        raise ValueError(f"{rate!r} is not a rate like 100/minute or 5 per 10 seconds")
    amount, seconds = int(match[1]), int(match[2] or 1) * _UNITS[match[3].lower()]
    if not amount or not seconds:
        raise ValueError(f"{rate!r} permits nothing")
    return amount, seconds


def _check_rate(rate: str) -> str:
    parse_rate(rate)
    return rate


RatesByKind = dict[RequestKindName, Annotated[str, AfterValidator(_check_rate)]]
ParsedRates = Annotated[RatesByKind, NoDecode, BeforeValidator(_parse_rates)]


def _check_jwt_secret(secret: SecretStr) -> SecretStr:
    try:
        size = len(secret.get_secret_value().encode())
    except UnicodeEncodeError:
        raise ValueError("a secret is a text of UTF-8") from None
    if size < JWT_SECRET_BYTES_MIN:
        raise ValueError(f"a secret has at least {JWT_SECRET_BYTES_MIN} bytes")
    return secret


def _check_jwks_url(url: str) -> str:
    if not re.fullmatch(
        r"(https://[^/?#@\s]+|http://(localhost|127\.0\.0\.1|\[::1\])(:\d+)?)(/[^#\s]*)?", url
    ):
        raise ValueError("a URL of https, or of http on this machine, without a password")
    return url


JWTSecret = Annotated[SecretStr, AfterValidator(_check_jwt_secret)]
JWKSAddress = Annotated[str, AfterValidator(_check_jwks_url)]


class DomainRoute(BaseModel):
    """A path of dialect 003, and the job that a POST to it submits. `{name}` in a text of the
    payload is the part of the path with this name.
    """

    model_config = ConfigDict(extra="forbid", frozen=True)

    path: str = Field(pattern=r"^(/([A-Za-z0-9_.~-]+|\{[a-z][a-z0-9_]*\}))+$")
    type: Name
    payload: dict[str, Any] = Field(default_factory=dict)

    @field_validator("path")
    @classmethod
    def _check_path(cls, path: str) -> str:
        if path.split("/")[1] in ("v1", "api"):
            raise ValueError("a path outside of /v1 and /api; it is served below /api, too")
        return path


def _parse_json(value: object) -> object:
    return orjson.loads(value) if isinstance(value, str) else value


DomainRoutes = Annotated[tuple[DomainRoute, ...], NoDecode, BeforeValidator(_parse_json)]
