"""The settings of the service: their defaults, units and variables, read from the environment."""

import os
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Any, Literal

from pydantic import Field, ValidationInfo, field_validator
from pydantic.fields import FieldInfo
from pydantic_settings import (
    BaseSettings,
    EnvSettingsSource,
    NoDecode,
    PydanticBaseSettingsSource,
    SettingsConfigDict,
)

from eventjobs.backoff import Backoff
from eventjobs.settings.formats import (
    Addresses,
    DomainRoutes,
    HostNames,
    JWKSAddress,
    JWTSecret,
    LimitsByName,
    Name,
    Names,
    Networks,
    Origins,
    ParsedRates,
    Suffixes,
)

PREFIX = "EVENTJOBS_"


@dataclass(frozen=True)
class Alias:
    """A second variable for a setting, under the name that other job services use."""

    variable: str


class EnvironmentSettings(BaseSettings):
    """Settings from arguments, then EVENTJOBS_* variables, then alias variables.

    An empty variable counts as not set.
    """

    model_config = SettingsConfigDict(
        env_prefix=PREFIX,
        env_ignore_empty=True,
        extra="forbid",
        hide_input_in_errors=True,  # some of it is secret
    )

    @classmethod
    def settings_customise_sources(
        cls,
        settings_cls: type[BaseSettings],
        init_settings: PydanticBaseSettingsSource,
        env_settings: PydanticBaseSettingsSource,
        dotenv_settings: PydanticBaseSettingsSource,
        file_secret_settings: PydanticBaseSettingsSource,
    ) -> tuple[PydanticBaseSettingsSource, ...]:
        return init_settings, env_settings, _AliasSource(settings_cls)


class _AliasSource(EnvSettingsSource):
    """Reads the alias variables of fields that have some."""

    def get_field_value(self, field: FieldInfo, field_name: str) -> tuple[Any, str, bool]:
        for each in _aliases(field):
            if (value := self.env_vars.get(each.lower())) is not None:
                return value, field_name, False
        return None, field_name, False


def working_directory() -> Path | None:
    """The current working directory; None when it was removed."""
    try:
        return Path.cwd()
    except FileNotFoundError:
        return None


def variables_of(settings: type[EnvironmentSettings], name: str) -> list[str]:
    """The variables that set *name*, by precedence, the highest first."""
    return [PREFIX + name.upper(), *_aliases(settings.model_fields[name])]


def variable_in_effect(settings: type[EnvironmentSettings], name: str) -> str | None:
    """The variable that sets *name* now; None when it has its default."""
    present = {variable.upper() for variable, value in os.environ.items() if value}
    return next((each for each in variables_of(settings, name) if each in present), None)


def _aliases(field: FieldInfo) -> list[str]:
    return [each.variable for each in field.metadata if isinstance(each, Alias)]


#: Variables that other job services read and that have no effect here, with the reasons.
WITHOUT_EFFECT = {
    "DATABASE_URL": "there is no database to connect to: all data is in the data directory",
    "RESULTS_DIR": "results and files are stored in the data directory, and served from there",
}


class Settings(EnvironmentSettings):
    """The settings of the service. A variable is EVENTJOBS_ and the setting's name in capitals."""

    data: Path = Field(Path("eventjobs-data"), description="directory of the log, views and files")
    host: str = Field(
        "127.0.0.1", description="address to listen on; without authentication loopback only"
    )
    auth: Literal["off", "optional", "required"] = Field(
        "off", description="whether requests need a credential; off: loopback addresses only"
    )
    session_s: float = Field(
        43_200.0, ge=1, le=31_536_000, description="time until a browser has to log in again"
    )
    allowed_hosts: HostNames = Field(
        (),
        description="host names of the service, with commas; .example.com has its subdomains, * is"
        " any; needs authentication",
    )
    cors_origins: Origins = Field(
        (),
        description="origins, with commas, whose pages may use the service with a key or token,"
        " like https://app.example.com",
    )
    trusted_proxies: Networks = Field(
        (),
        description="addresses and networks, with commas, of proxies whose Forwarded and"
        " X-Forwarded-* count",
    )
    jwt_secret: JWTSecret | None = Field(
        None, description="secret that JWTs are signed with (HS256), at least 32 bytes"
    )
    jwks_url: JWKSAddress | None = Field(
        None, description="address of the keys that JWTs are signed with (RS256, ES256)"
    )
    jwt_issuer: Name | None = Field(
        None, validate_default=True, description="`iss` of JWTs; required with jwks_url"
    )
    jwt_audience: Name | None = Field(
        None, validate_default=True, description="`aud` of JWTs; required with jwks_url"
    )
    jwt_scope_claim: Name = Field(
        "scope", description="claim of JWTs with their scopes: a text with spaces, or a list"
    )
    port: int = Field(8080, ge=0, le=65535, description="port to listen on; 0 picks one")
    listen: Addresses = Field(
        (), description="more addresses to listen on, with commas, like 127.0.0.1:5328"
    )
    redis_port: int | None = Field(
        None,
        ge=0,
        le=65535,
        description="port on 127.0.0.1 where redis-cli can read jobs; 0 picks one; unset: none",
    )
    redis_queue: str = Field(
        "data_jobs", min_length=1, max_length=256, description="key of the queued uploads there"
    )

    dialects: Names = Field(
        (), description="front ends to serve, with commas, such as 000,003; all: every one"
    )
    dialect_logs: Names = Field(
        (), description="front ends whose own log lines are written as well: 001,004; all: both"
    )
    queue_job_type: str = Field(
        "analyze-text", description="type of the jobs of POST /api/queue-job (dialect 000)"
    )
    domain_routes: DomainRoutes | None = Field(
        None,
        description="paths of dialect 003 and their job types, as a JSON list; unset: its own",
    )
    job_store_dirs: Names = Field(
        (),
        description="directories, with commas, of job files that are imported when they are read;"
        " unset: jobs,shadow/jobs with dialects 000 and 001; off: none",
    )
    job_store_owner: Name | None = Field(
        None, description="owner of jobs imported from files; unset: only administrators see them"
    )
    job_file_bytes_max: int = Field(1_048_576, ge=1024, description="size of one such file")
    upload_type: str = Field(
        "analyze-csv", description="type of the jobs of POST /api/upload (dialects 002 and 004)"
    )
    upload_bytes_max: int = Field(
        104_857_600, ge=1, description="size of a file in POST /api/upload"
    )
    upload_suffixes: Suffixes = Field(
        (".csv", ".tsv", ".txt", ".xls", ".xlsx", ".xlsb", ".ods"),
        description="ends of the names of files in POST /api/upload, with commas",
    )
    concurrency: int = Field(256, ge=0, description="jobs that run at once; 0 runs none")
    threads: int = Field(16, ge=1, description="jobs that run at once in threads")
    processes: int | None = Field(
        None, ge=1, description="jobs that run at once in processes; unset: one for each CPU"
    )
    process_jobs_max: int = Field(
        1000, ge=1, description="jobs that a process runs before a new one replaces it"
    )
    queue_limits: LimitsByName = Field(
        default_factory=dict, description="jobs of a queue that run at once, like mail=2,reports=5"
    )
    type_limits: LimitsByName = Field(
        default_factory=dict,
        description="jobs of a type that run at once; overrides the handler's limit",
    )
    grace_s: float = Field(
        5.0, ge=0, description="time to stop before an attempt is abandoned or its process killed"
    )
    drain_s: float = Field(10.0, ge=0, description="time for running jobs to finish at a shutdown")
    shutdown_fails: Annotated[Names | None, NoDecode] = Field(
        None,
        description="job types, with commas, whose running jobs fail at a shutdown; others run"
        " again; unset: with dialect 004 the type of its uploads; off: none",
    )
    progress_interval_s: float = Field(
        0.25, ge=0, description="shortest time between stored progress reports of a job"
    )
    timeout_s: Annotated[float | None, Alias("JOB_TIMEOUT_SECONDS")] = Field(
        None,
        gt=0,
        description="longest run of an attempt whose job and handler have no limit; unset: none",
    )
    max_attempts: int = Field(
        3,
        ge=1,
        le=1000,
        description="attempts of a job, unless the job or its handler has a number",
    )
    retry_delay_s: float = Field(
        1.0, ge=0, description="delay before the second attempt; doubled for each later one"
    )
    retry_delay_max_s: float = Field(300.0, ge=0, description="longest delay between attempts")
    worker_types: Names = Field(
        (), description="job types, with commas, that only remote workers run"
    )
    lease_s: float = Field(
        30.0,
        ge=1,
        le=86_400,
        description="a remote worker without a request for so long has lost its jobs",
    )
    catch_up_s: float = Field(
        86_400.0,
        ge=0,
        le=31_536_000,
        description="a firing missed by up to this time is submitted late",
    )
    ttl_s: Annotated[float, Alias("JOB_TTL")] = Field(
        86_400.0, ge=0, description="time from a job's end until it is hidden; inf: never"
    )
    call_delay_s: Annotated[float, Alias("RETRY_INITIAL_DELAY")] = Field(
        0.5, ge=0, description="delay of ctx.retrying before the second try"
    )
    call_delay_factor: Annotated[float, Alias("RETRY_FACTOR")] = Field(
        2.0, ge=1, description="factor from each delay of ctx.retrying to the next"
    )
    call_delay_max_s: Annotated[float, Alias("RETRY_MAX_DELAY")] = Field(
        10.0, ge=0, description="longest delay of ctx.retrying"
    )
    store_attempts: Annotated[int, Alias("BLOB_RETRY_ATTEMPTS")] = Field(
        3,
        ge=1,
        le=100,
        description="tries to write a file of a job, with the delays of ctx.retrying",
    )
    result_bytes_max: int = Field(
        262_144,
        ge=1024,
        description="larger results become artifacts; larger results of steps are refused",
    )
    capture_logs: Literal["debug", "info", "warning", "error", "off"] = Field(
        "info",
        description="lowest level of handlers' log lines that the job's log gets; off: none",
    )
    log_requests: Literal["failed", "all"] = Field(
        "failed",
        description="requests that have a line at level info or above; all makes reads slower",
    )
    log_lines_max: int = Field(10_000, ge=1, description="lines in the log of one job")

    python_service_url: Annotated[str | None, Alias("PYTHON_SERVICE_URL")] = Field(
        None, description="base address of external services whose dispatch_url begins with a slash"
    )
    public_url: str | None = Field(
        None,
        description="address at which external services call back; unset: the listening address",
    )
    service_silence_s: float = Field(
        900.0,
        gt=0,
        description="longest time without a report of an external service; a job's limits win",
    )
    completion_hooks: tuple[dict[str, Any], ...] = Field(
        (),
        description="completion hooks that are POSTed to a URL, as a JSON list of"
        ' {"type", "name", "url", …}; see docs/hooks.md',
    )
    outbound_allow: str = Field(
        "",
        description="hosts, addresses and networks, with commas, that webhooks and external"
        " services may be at besides public addresses on ports 80 and 443",
    )

    body_bytes_max: int = Field(
        1_048_576, ge=1024, description="size of a request's body, except uploads"
    )
    batch_bytes_max: int = Field(67_108_864, ge=1024, description="size of a batch submission")
    batch_lines_max: int = Field(100_000, ge=1, description="jobs in a batch submission")
    depth_max: int = Field(32, ge=1, le=200, description="nesting of JSON in a request")
    keys_max: int = Field(10_000, ge=1, description="object keys and list items in a request")
    string_chars_max: int = Field(
        524_288, ge=1, description="characters of one string in a request"
    )
    artifact_bytes_max: int = Field(8 * 2**30, ge=1, description="size of one uploaded file")
    owner_queued_max: int | None = Field(
        None, ge=1, description="queued jobs of one owner; unset: no limit"
    )
    owner_streams_max: int | None = Field(
        None, ge=1, description="open streams of one owner; unset: no limit"
    )
    owner_long_polls_max: int | None = Field(
        None, ge=1, description="open long polls and claims of one owner; unset: no limit"
    )
    owner_bytes_max: int | None = Field(
        None, ge=0, description="bytes of the uploaded files of one owner; unset: no limit"
    )
    body_timeout_s: float = Field(
        30.0, gt=0, description="longest pause within a request's body; twice that for all of it"
    )
    head_timeout_s: float = Field(
        15.0,
        gt=0,
        description="time to receive the head of a request, from its first byte or the connection",
    )
    connections_max: int = Field(20_000, ge=1, description="open connections")
    address_connections_max: int | None = Field(
        None, ge=1, description="open connections of one client address; unset: no limit"
    )
    address_rates: ParsedRates = Field(
        default_factory=dict,
        description="requests of one client address, like submit=100/minute,read=1000/minute;"
        " also stream and work",
    )
    principal_rates: ParsedRates = Field(
        default_factory=dict, description="the same for one API key or user, besides"
    )
    webhooks_max: int = Field(1000, ge=0, description="number of webhooks")
    api_keys_max: int = Field(1000, ge=1, description="number of API keys that are not revoked")
    pauses_max: int = Field(1000, ge=1, description="number of paused types, queues and schedules")
    page_max: int = Field(1000, ge=1, description="entries of one page")
    wait_max_s: float = Field(25.0, ge=0, description="longest wait of a long poll")
    ids_max: int = Field(200, ge=1, description="jobs named in one stream")

    heartbeat_s: float = Field(15.0, gt=0, description="time between comments on a quiet stream")
    stall_s: float = Field(
        30.0,
        gt=0,
        description="a client that reads nothing of its response for so long is disconnected",
    )
    stream_buffer_bytes_max: int = Field(
        65_536, ge=1024, description="bytes of a stream that the client has not read"
    )
    streams_max: int = Field(15_000, ge=1, description="open streams")
    log_waiting_max: int = Field(20_000, ge=1, description="events waiting to be written")

    @field_validator("jwks_url")
    @classmethod
    def _check_one_kind_of_key(cls, url: str | None, info: ValidationInfo) -> str | None:
        if url is not None and info.data.get("jwt_secret") is not None:
            raise ValueError("set either jwt_secret or jwks_url")
        return url

    @field_validator("jwt_issuer", "jwt_audience")
    @classmethod
    def _check_required(cls, value: str | None, info: ValidationInfo) -> str | None:
        if value is None and info.data.get("jwks_url") is not None:
            raise ValueError("it is required with jwks_url")
        return value

    @property
    def types_failed_at_shutdown(self) -> frozenset[str]:
        """The types whose running jobs fail at a shutdown, besides those whose handler says so."""
        types = self.shutdown_fails
        if types is None:
            types = (self.upload_type,) if {"004", "all"} & {*self.dialects} else ()
        return frozenset(types) - {"off"}

    @property
    def backoff(self) -> Backoff:
        """The delays between the tries of ctx.retrying."""
        return Backoff(self.call_delay_s, self.call_delay_factor, self.call_delay_max_s)
