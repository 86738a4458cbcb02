"""Settings: `penstock.toml`, then `PENSTOCK_*`, then arguments; the later wins.

An unknown key is an error that names the nearest known one, so that a typo never becomes a
default that nobody asked for.
"""

from __future__ import annotations

import os
import tomllib
from collections.abc import Mapping
from pathlib import Path
from typing import Annotated, Any, Literal

from pydantic import (
    BaseModel,
    ConfigDict,
    Field,
    ValidationError,
    ValidationInfo,
    field_validator,
)

from penstock.base import units
from penstock.base.errors import BadInput, SettingsError
from penstock.base.nearest import did_you_mean
from penstock.base.project import FILE, project_folder

PREFIX = "PENSTOCK_"
UP_PORT = 8700  # where `penstock up` listens, unless it is told another
# Variables that are not settings: tests and the processes that Penstock starts use them.
_NOT_SETTINGS = {
    "PENSTOCK_CHAOS_SEED",
    "PENSTOCK_EXPLAIN",
    "PENSTOCK_NEIGHBOURS",
    "PENSTOCK_NODE_HOME",
    "PENSTOCK_RANK",
}


class Settings(BaseModel):
    """Everything that can be configured; each field's description is its documentation."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    home: Path = Field(
        Path(".penstock"), description="Where state lives; relative to the project's folder."
    )
    meta: str | None = Field(
        None,
        description="URL of the meta store, such as postgresql://USER@HOST/DATABASE; default: "
        "SQLite in the home.",
    )
    blobs: str | None = Field(None, description="URL of the blob store; default: in the home.")
    engine: str = Field(
        "processes",
        description="Where ranks run: processes (this machine); ray://HOST:PORT, ray:HOST:PORT or "
        "ray (a Ray cluster); hosts:N, N agents on this machine as if they were so many machines.",
    )
    cluster_strategy: Literal["pack", "spread"] = Field(
        "pack",
        description="How ranks are placed on nodes: pack, on as few as will do; spread, on as many "
        "as there are.",
    )
    cluster_resources: dict[str, float] = Field(
        {},
        description="What each rank takes of a node beside CPUs and GPUs, by Ray's names: "
        "`{ arm = 1 }`.",
    )
    cluster_labels: dict[str, str] = Field(
        {}, description='Only nodes with these labels of Ray: `{ zone = "eu-1" }`.'
    )
    cluster_packages: list[str] = Field(
        [],
        description="Packages that nodes install for ranks, beside what they have: "
        '`["einops==0.8.1"]`.',
    )
    cluster_autoscales: bool = Field(
        False,
        description="Whether nodes are added to the cluster when somebody waits for them; without, "
        "a gang that it cannot hold is refused at once.",
    )
    cluster_spares: int = Field(
        0,
        ge=0,
        description="Agents that stand by on other nodes while a training runs, for when one of "
        "its own is lost.",
    )
    log_level: Literal["debug", "info", "warning", "error"] = Field(
        "info", description="What Penstock itself logs."
    )
    log_format: Literal["auto", "human", "json"] = Field(
        "auto", description="auto: human on a terminal, JSON lines otherwise."
    )
    lease_seconds: float = Field(
        10.0, gt=0.5, description="How long a silent owner keeps its lease, in seconds."
    )
    hang_seconds: Annotated[float, Field(ge=1.0, allow_inf_nan=False)] | Literal["off"] = Field(
        300.0,
        description="How long the ranks of a training may show no sign of life within a step, or "
        "ten times their longest recent step if that is more, before they are replaced; off: for "
        "ever.",
    )
    grace_seconds: float = Field(
        25.0,
        ge=0.0,
        description="How long the ranks of a training have to save and leave after a SIGTERM, "
        "which schedulers send before they kill.",
    )
    slurm_requeue: bool = Field(
        True,
        description="Whether a training under SLURM that was preempted (SIGTERM or SIGUSR1) asks "
        "for its job once more: `scontrol requeue`.",
    )
    peak_flops: float | None = Field(
        None,
        gt=0,
        description="FLOPs a second that the device of one rank can do; default: known of common "
        "GPUs.",
    )
    devices: str | None = Field(
        None,
        description="The GPUs of this machine by name, where they cannot be listed, and in tests: "
        "gpu:GPU-a,GPU-b; default: what NVML or the driver lists.",
    )
    claim_cores: bool = Field(
        False,
        description="Whether trainings claim cores as they do GPUs, and wait where there are too "
        "few.",
    )
    memory_tier_bytes: int | None = Field(
        None,
        ge=0,
        description="Shared memory for checkpoints on their way to disk; default: a fourth of "
        "what the cgroup and /dev/shm leave.",
    )
    checkpoint_memory_every: Annotated[int, Field(ge=1)] | Literal["auto", "off"] = Field(
        "auto",
        description="Steps between two states of a training that stay in shared memory, to go on "
        "from when a rank dies; auto: about a second, or what costs 1 % of the time if that is "
        "more; off: none.",
    )
    checkpoint_disk_bytes: int | None = Field(
        None,
        ge=0,
        description="Disk of this machine for checkpoints before an object store: on their way "
        "there, and to be read again; default: a fourth of what is free there; 0: they are "
        "written to the store directly.",
    )
    cache_bytes: int | None = Field(
        None,
        ge=0,
        description="Disk for the node's cache of shards; default: half of what is free there.",
    )
    cache_quotas: dict[str, int] = Field(
        {},
        description="Parts of `cache_bytes` that single datasets have to themselves: "
        '`{ imagenet = "200GB" }`.',
    )
    cache_neighbours: bool = Field(
        True,
        description="Whether nodes of a cluster ask each other's caches for a shard before the "
        "blob store.",
    )
    compiled_bytes: int = Field(
        5 << 30,
        ge=0,
        description="Disk for what torch.compile has compiled, which later attempts and runs use; "
        "what was used longest ago goes first.",
    )
    keep_checkpoints: int = Field(
        5, ge=1, description="Newest checkpoints of a run that are kept, beside the best."
    )
    keep_checkpoints_every: int | None = Field(
        None,
        ge=1,
        description="Of every so many steps of a run the first checkpoint is kept too, for good.",
    )
    keep_versions: int = Field(
        20,
        ge=0,
        description="Newest versions of a dataset that `penstock data gc` keeps, beside those with "
        "an alias or tag and those that something refers to.",
    )
    tensorboard: Path | None = Field(
        None, description="Folder to which scalars of every run are forwarded as TensorBoard files."
    )
    mlflow: str | None = Field(
        None,
        description="Tracking URI of MLflow, or a folder, to which scalars of every run are "
        "forwarded.",
    )
    wandb: str | None = Field(
        None,
        description="Project of Weights & Biases, or ENTITY/PROJECT, to which scalars and config "
        "of every run are forwarded; WANDB_MODE=offline writes files only.",
    )
    token: str | None = Field(
        None, description="Bearer token that `penstock up` asks for; needed beyond loopback."
    )

    @field_validator("cache_quotas", mode="before")
    @classmethod
    def _read_quotas(cls, given: Any) -> Any:
        """Of a variable: "imagenet=200GB,digits=1GB"."""
        if isinstance(given, str):
            pairs = [each.partition("=") for each in given.split(",") if each.strip()]
            given = {name.strip(): size for name, _, size in pairs}
        try:
            return {name: units.size(size) for name, size in dict(given).items()}
        except (BadInput, TypeError) as error:
            told = error.what if isinstance(error, BadInput) else "it is no table of sizes"
            raise ValueError(told) from None

    @field_validator("cluster_resources", "cluster_labels", mode="before")
    @classmethod
    def _read_pairs(cls, given: Any) -> Any:
        """Of a variable: "zone=eu-1,disk=ssd"."""
        if not isinstance(given, str):
            return given
        pairs = [each.partition("=") for each in given.split(",") if each.strip()]
        return {name.strip(): value.strip() for name, _, value in pairs}

    @field_validator("cluster_packages", mode="before")
    @classmethod
    def _read_list(cls, given: Any) -> Any:
        """Of a variable: "einops==0.8.1,tqdm"."""
        if not isinstance(given, str):
            return given
        return [each.strip() for each in given.split(",") if each.strip()]

    @field_validator("cluster_resources")
    @classmethod
    def _fit_resources(cls, given: dict[str, float]) -> dict[str, float]:
        for name, amount in given.items():
            if name in ("CPU", "GPU") or not amount > 0:
                raise ValueError(f"{name}={amount:g}: threads and devices are said by ps.train")
        return given

    @field_validator("cache_quotas")
    @classmethod
    def _fit_quotas(cls, quotas: dict[str, int], others: ValidationInfo) -> dict[str, int]:
        room = others.data.get("cache_bytes")
        if quotas and room is None:
            raise ValueError("quotas are parts of cache_bytes, which is not set")
        if any(size < 0 for size in quotas.values()) or sum(quotas.values()) > (room or 0):
            raise ValueError(f"the quotas are not parts of cache_bytes, which is {room or 0}")
        return quotas


def _from_file(folder: Path) -> dict[str, Any]:
    path = folder / FILE
    if not path.is_file():
        return {}
    try:
        return tomllib.loads(path.read_text())
    except (tomllib.TOMLDecodeError, UnicodeDecodeError) as error:
        raise SettingsError(
            f"{path} is not TOML: {error}", "Mend the line that is named.", path=str(path)
        ) from None


def _from_environment(environment: Mapping[str, str]) -> dict[str, Any]:
    return {
        key.removeprefix(PREFIX).lower(): value
        for key, value in environment.items()
        if key.startswith(PREFIX) and key not in _NOT_SETTINGS
    }


def _refuse_unknown(values: Mapping[str, Any], source: str) -> None:
    for key in values:
        if key not in Settings.model_fields:
            raise SettingsError(
                f'unknown setting "{key}" in {source}',
                did_you_mean(key, Settings.model_fields),
                setting=key,
                source=source,
            )


def load_settings(
    folder: Path | None = None, environment: Mapping[str, str] | None = None, **arguments: Any
) -> Settings:
    """Read all three sources. Raises SettingsError, which names the source and the key.

    folder     the project's folder; default: found upwards from here
    arguments  None means "not given"
    """
    folder = project_folder(folder)
    sources = {
        str(folder / FILE): _from_file(folder),
        "the environment (PENSTOCK_…)": _from_environment(
            os.environ if environment is None else environment
        ),
        "the arguments": {key: value for key, value in arguments.items() if value is not None},
    }
    merged: dict[str, Any] = {}
    origin: dict[str, str] = {}
    for source, values in sources.items():
        _refuse_unknown(values, source)
        merged |= values
        origin |= dict.fromkeys(values, source)
    try:
        settings = Settings.model_validate(merged)
    except ValidationError as error:
        first = error.errors()[0]
        key = str(first["loc"][0]) if first["loc"] else "?"
        raise SettingsError(
            f'setting "{key}" in {origin.get(key, "?")} does not hold: {first["msg"]}',
            f"It is described as: {Settings.model_fields[key].description}",
            setting=key,
        ) from None
    home = settings.home.expanduser()
    return settings.model_copy(
        update={"home": home if home.is_absolute() else (folder / home).resolve()}
    )
