"""Settings of the demo's jobs. They are read when a job runs."""

from typing import Annotated, Any

from pydantic import Field, SecretStr

from eventjobs.settings import Alias, EnvironmentSettings


class DemoSettings(EnvironmentSettings):
    """Of the demo. The variable of a setting is EVENTJOBS_ and its name in capitals."""

    openrouter_api_key: Annotated[SecretStr | None, Alias("OPENROUTER_API_KEY")] = Field(
        None, description="analyze-csv and llm-summary ask a model with it; unset, they do without"
    )
    llm_base_url: Annotated[str, Alias("LLM_BASE_URL")] = Field(
        "https://openrouter.ai/api/v1", description="any service that speaks OpenAI's protocol"
    )
    llm_model: Annotated[str, Alias("LLM_MODEL")] = Field(
        "deepseek/deepseek-r1", description="the model it asks for"
    )
    llm_timeout_s: float = Field(60.0, gt=0, description="for the answer to one request")
    llm_retry_attempts: Annotated[int, Alias("LLM_RETRY_ATTEMPTS")] = Field(
        2, ge=1, le=20, description="requests for one summary, at most"
    )
    llm_circuit_threshold: Annotated[int, Alias("LLM_CIRCUIT_THRESHOLD")] = Field(
        5, ge=1, description="failed summaries until the model is not asked for a while"
    )
    llm_circuit_window_s: Annotated[float, Alias("LLM_CIRCUIT_WINDOW")] = Field(
        300.0, gt=0, description="within which they have to fail"
    )
    llm_circuit_cooldown_s: Annotated[float, Alias("LLM_CIRCUIT_COOLDOWN")] = Field(
        600.0, gt=0, description="for so long it is not asked"
    )
    simulated_slow_processing_s: Annotated[float, Alias("SIMULATED_SLOW_PROCESSING_SECONDS")] = (
        Field(
            0.0, ge=0, description="analyze-csv, analyze-text and llm-summary take so much longer"
        )
    )

    @property
    def llm_circuit(self) -> dict[str, Any]:
        """The options of the circuit breaker that all jobs share which ask the model."""
        return {
            "threshold": self.llm_circuit_threshold,
            "window_s": self.llm_circuit_window_s,
            "cooldown_s": self.llm_circuit_cooldown_s,
        }
