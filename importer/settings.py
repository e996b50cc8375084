"""Settings of an importer: one frozen object, read once at start.

The only reader of the environment (YOLOPOOL_IMPORTER_*) and of the command line, which wins.
"""

import tempfile
from pathlib import Path
from typing import Annotated, Any, Literal

from pydantic import Field, field_validator
from pydantic_settings import (
    BaseSettings,
    CliApp,
    CliPositionalArg,
    NoDecode,
    SettingsConfigDict,
)


class Settings(BaseSettings):
    """Flags of `python -m importer`; each is `--kebab-case` and YOLOPOOL_IMPORTER_UPPER_CASE."""

    model_config = SettingsConfigDict(
        env_prefix="YOLOPOOL_IMPORTER_",
        frozen=True,
        cli_prog_name="python -m importer",
        cli_kebab_case=True,
        cli_implicit_flags=True,
        cli_hide_none_type=True,
        cli_avoid_json=True,
    )

    file: CliPositionalArg[str] = Field(
        "", description="import this one checkpoint without a pool, print the report and end"
    )
    arch: str = Field(
        "",
        description="of a FILE that holds weights alone: YAML file of the architecture, or the "
        "name of one of the library's, such as yolo11n.yaml",
    )
    names: str = Field(
        "", description="with --arch, or of an ONNX file: its classes, comma separated"
    )
    head: Literal["", "one-to-many", "end-to-end"] = Field(
        "", description="of FILE: one-to-many unless the file has the other alone"
    )
    layout: Literal["", "objectness", "plain", "end-to-end", "pair"] = Field(
        "", description="of an ONNX FILE: how its answer is laid out, where the file does not tell"
    )
    backend: Literal["", "onnx", "openvino", "tensorrt"] = Field(
        "", description="that the pack of FILE is for; torch, or onnx where FILE is of ONNX"
    )
    precision: Literal["", "fp32", "bf16", "int8"] = Field(
        "", description="what the graph computes in: fp32, of openvino bf16, of both runtimes int8"
    )
    calibration: Path | None = Field(
        None, description="with --precision int8: folder of JPEG or PNG images as it will see them"
    )
    out: Path = Field(Path("packs"), description="folder that the pack of FILE goes to")
    control_planes: Annotated[tuple[str, ...], NoDecode] = Field(
        ("127.0.0.1:50051",), description="host:port of every control plane, comma separated"
    )
    scratch_dir: Path = Field(
        Path(tempfile.gettempdir()), description="where a pack is made before it is published"
    )
    memory_limit_bytes: int = Field(
        4 * 1024**3, ge=64 * 1024**2, description="of one import, beside the libraries themselves"
    )
    time_limit_s: float = Field(
        300.0, gt=0, description="of one import; int8 has four times as long"
    )
    max_artifact_bytes: int = Field(4 * 1024**3, ge=1, description="of one uploaded file")
    require_sandbox: bool = Field(
        False, description="refuse to import where this host can't have every layer of the sandbox"
    )
    die_with_parent: bool = Field(False, description="end when the parent process ends")
    log_level: Literal["DEBUG", "INFO", "WARNING", "ERROR"] = "INFO"
    log_json: bool = Field(True, description="one JSON object a line, for machines")

    @field_validator("control_planes", mode="before")
    @classmethod
    def _split(cls, value: Any) -> Any:
        if isinstance(value, str):
            return tuple(part.strip() for part in value.split(",") if part.strip())
        return value


def read_settings(arguments: list[str] | None = None) -> Settings:
    """Reads the command line (by default this process's) and the environment."""
    return CliApp.run(Settings, cli_args=arguments)
