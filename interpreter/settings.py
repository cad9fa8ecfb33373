"""Settings: keyword arguments, then `CELLSHELL_*`, then `.env`, then a TOML file, then defaults."""

from __future__ import annotations

import hashlib
import os
import tempfile
from pathlib import Path
from typing import Literal

from platformdirs import user_data_path
from pydantic import Field, SecretStr, field_validator
from pydantic_settings import (
    BaseSettings,
    PydanticBaseSettingsSource,
    SettingsConfigDict,
    TomlConfigSettingsSource,
)

from interpreter.allowed_host import AllowedHost
from interpreter.egress_dial import Upstream
from interpreter.fields import DEFAULT_OUTPUT_BYTES, ID_PATTERN
from interpreter.limit_models import LEAST_DISK, LEAST_MEMORY
from interpreter.ports_domain import PortsDomain
from interpreter.walls import Tier


class Settings(BaseSettings):
    """Everything an operator can choose. Times in seconds, sizes in bytes."""

    model_config = SettingsConfigDict(
        env_prefix="CELLSHELL_",
        env_file=".env",
        extra="ignore",
        toml_file="cellshell.toml",
        use_attribute_docstrings=True,
    )

    home: Path = Field(default_factory=lambda: user_data_path("cellshell"))
    """Registry, files and records of all sandboxes. Made with mode 0700."""
    host: str = "127.0.0.1"
    port: int = Field(default=8000, ge=0, le=65535)
    token: SecretStr | None = None
    """Required in every request when set. Without it the service is for this machine alone."""
    isolation: Literal["auto", "bwrap", "process", "none"] = "auto"
    isolation_minimum: Tier = "none"
    """The weakest tier to start with; where there is only a weaker one, start is refused."""
    allowed_origins: list[str] = []
    """Origins of web pages that may call the service."""
    kernel_environment: Path | None = None
    """The default Python kernel's environment; by default `environments/python` below `home`."""
    fork_server: bool = True
    """Whether Python kernels are forked from a process that has imported what they need."""
    fork_server_imports: list[str] = ["numpy", "pandas", "matplotlib.pyplot", "PIL.Image"]
    """What it imports beside the kernel's own; names that are not there are left out."""
    spare_kernels: int = Field(default=8, ge=0)
    """Forked kernels that wait for somebody to ask for one, each in another sandbox."""
    ready_boxes: int = Field(default=1, ge=0)
    """Boxes that wait for a sandbox that asks for the usual limits and no network."""
    jupyter_sandbox: str = Field(default="jupyter", pattern=ID_PATTERN)
    """Where a kernel that a Jupyter frontend starts gets a session of its own."""
    heartbeat: float = Field(default=15.0, gt=0)
    """The longest silence of an event stream."""
    queue_length: int = Field(default=100, ge=1)
    """Runs that may wait in one context, and commands in one shell."""
    kept_executions: int = Field(default=1000, ge=1)
    """Finished executions kept in one sandbox."""
    kept_seconds: float = Field(default=86400.0, gt=0)
    """How long a finished execution is kept at most."""
    journal_bytes: int = Field(default=64 * DEFAULT_OUTPUT_BYTES, ge=1024)
    """Output kept of one execution, or of one process; beyond it the middle is left out."""
    kept_processes: int = Field(default=200, ge=1)
    interrupt_grace: float = Field(default=2.0, gt=0)
    """How long an interrupted cell or command may take to end before it is killed."""
    on_stop: Literal["keep", "destroy"] = "keep"
    """What becomes of running sandboxes when the service is asked to stop: `keep` leaves them
    running, for the next service on the same data directory."""
    max_sandboxes: int = Field(default=1000, ge=1)
    default_memory_bytes: int | None = Field(default=None, ge=LEAST_MEMORY)
    """Limits of sandboxes that ask for none, and the most that one may ask for."""
    max_memory_bytes: int | None = Field(default=None, ge=LEAST_MEMORY)
    default_cpus: float | None = Field(default=None, ge=0.01)
    max_cpus: float | None = Field(default=None, ge=0.01)
    default_pids: int | None = Field(default=None, ge=1)
    max_pids: int | None = Field(default=None, ge=1)
    default_disk_bytes: int | None = Field(default=None, ge=LEAST_DISK)
    max_disk_bytes: int | None = Field(default=None, ge=LEAST_DISK)
    open_files: int = Field(default=65_536, ge=256)
    """Descriptors that one process in a box may have open."""
    max_sessions: int = Field(default=200, ge=1)
    """Sessions of one sandbox."""
    max_contexts: int = Field(default=50, ge=1)
    """Contexts of one session."""
    max_processes: int = Field(default=1000, ge=1)
    """Processes of one sandbox that run at a time."""
    max_seconds: float | None = Field(default=None, gt=0)
    """The longest that a command or cell may run, whatever time-out it asks for."""
    tmp_bytes: int = Field(default=1 << 30, ge=1 << 20)
    """Size of `/tmp` in a box; it is memory."""
    shm_bytes: int = Field(default=1 << 29, ge=1 << 20)
    egress_upstream: SecretStr | None = None
    """An HTTP proxy that the egress proxy goes through, with its credentials."""
    egress_upstream_resolves: bool = False
    """The upstream proxy gets names instead of addresses that were checked: for where names
    resolve nowhere else. What a name leads to is then that proxy's to refuse."""
    egress_private_hosts: list[str] = []
    """Hosts on private addresses that sandboxes with network may reach."""
    idle_timeout: float | None = Field(default=None, gt=0)
    """Seconds without activity after which a sandbox that asks for nothing else is paused."""
    on_idle: Literal["pause", "destroy"] = "pause"
    """What then becomes of it."""
    ports_domain: str | None = None
    """Ports are served to browsers below it, `https://8000-user-123.ports.example.org`: each an
    origin of its own. Its names must lead here, by way of a proxy that keeps `Host`."""
    port_answer_seconds: float = Field(default=600.0, gt=0)
    """How long a server in a sandbox may take to begin its answer to a request."""
    uid_base: int = Field(default=1_200_000, ge=1000)
    """A service run by root gives each sandbox a uid of its own, counting from here."""

    @field_validator("egress_upstream")
    @classmethod
    def _is_a_proxy(cls, url: SecretStr | None) -> SecretStr | None:
        if url is not None:
            Upstream.parse(url.get_secret_value())
        return url

    @field_validator("ports_domain")
    @classmethod
    def _is_a_domain(cls, domain: str | None) -> str | None:
        if domain is not None:
            PortsDomain.parse(domain)
        return domain

    @field_validator("egress_private_hosts")
    @classmethod
    def _are_hosts(cls, hosts: list[str]) -> list[str]:
        for host in hosts:
            if AllowedHost.parse(host).below:
                raise ValueError(f"expected each private host by its own name, got {host!r}")
        return hosts

    @classmethod
    def settings_customise_sources(
        cls,
        settings_cls: type[BaseSettings],
        init_settings: PydanticBaseSettingsSource,
        env_settings: PydanticBaseSettingsSource,
        dotenv_settings: PydanticBaseSettingsSource,
        file_secret_settings: PydanticBaseSettingsSource,
    ) -> tuple[PydanticBaseSettingsSource, ...]:
        toml = TomlConfigSettingsSource(
            settings_cls, os.environ.get("CELLSHELL_CONFIG", "cellshell.toml")
        )
        return init_settings, env_settings, dotenv_settings, toml

    @property
    def python_home(self) -> Path:
        """Where the default kernel environment is, or will be made."""
        return self.kernel_environment or self.home / "environments" / "python"

    @property
    def runtime(self) -> Path:
        """Sockets and pages of running boxes. Short: a Unix socket path ends at 107 bytes."""
        digest = hashlib.sha256(str(self.home.absolute()).encode()).hexdigest()[:10]
        return Path(tempfile.gettempdir()) / f"cellshell-{os.getuid()}-{digest}"
