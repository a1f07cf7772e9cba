"""Settings of the commands that call a service, and of workers."""

from pydantic import Field, SecretStr

from eventjobs.settings import EnvironmentSettings


class ClientSettings(EnvironmentSettings):
    """Not options of commands: other users of a machine can read the options of a process."""

    token: SecretStr | None = Field(
        None, description="API key or token that commands and workers send to the service"
    )

    @property
    def token_text(self) -> str | None:
        return None if self.token is None else self.token.get_secret_value()
