"""Settings of an importer: one frozen object, read once at start.

The only reader of the environment (YOLOPOOL_IMPORTER_*) and of the command line, which wins.
"""

import tempfile
from pathlib import Path
from typing import Annotated, Any, Literal

from pydantic import Field, field_validator
from pydantic_settings import (
    CliApp,
    CliPositionalArg,
    NoDecode,
    SettingsConfigDict,
)

from yolopool.signing.signers import Signers, read_keys
from yolopool.tls.process_settings import PoolProcess, split


class Settings(PoolProcess):
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
        "", description="import this one file without a pool, print the report and exit"
    )
    arch: str = Field(
        "",
        description="architecture of a FILE that holds weights alone: a YAML file, or the name of "
        "one of the model library's, such as yolo11n.yaml",
    )
    names: str = Field(
        "",
        description="class names in place of those of FILE: a,b,... of all, needed with --arch, or "
        "0=a,3=b of some",
    )
    head: Literal["", "one-to-many", "end-to-end"] = Field(
        "", description="head of FILE to use; default: one-to-many, if the file has it"
    )
    layout: Literal["", "objectness", "plain", "end-to-end", "pair"] = Field(
        "", description="output layout of an ONNX FILE that does not say it"
    )
    backend: Literal["", "onnx", "openvino", "tensorrt"] = Field(
        "", description="backend of the pack; default: torch, or onnx for an ONNX FILE"
    )
    precision: Literal["", "fp32", "bf16", "int8"] = Field(
        "", description="precision of the pack: fp32; bf16 for openvino; int8 for onnx and openvino"
    )
    calibration: Path | None = Field(
        None, description="for int8: folder of JPEG or PNG images like those the model will be sent"
    )
    out: Path = Field(Path("packs"), description="folder for the pack of FILE")
    join_dir: Path = Field(
        Path("~/.cache/yolopool/importer/joined"),
        description="folder of that certificate and its key",
    )
    scratch_dir: Path = Field(
        Path(tempfile.gettempdir()), description="folder for packs that are not yet published"
    )
    memory_limit_bytes: int = Field(
        4 * 1024**3,
        ge=64 * 1024**2,
        description="memory limit of one import, without the libraries",
    )
    parallel: int = Field(
        0,
        ge=0,
        description="imports at once; 0: one a core, as far as the memory limit of each has room",
    )
    prepared: bool = Field(
        True,
        description="keep a process that has imported the libraries, of which imports are forked: "
        "it saves each the seconds of their start",
    )
    time_limit_s: float = Field(
        300.0, gt=0, description="time limit of one import; four times as long for int8"
    )
    max_artifact_bytes: int = Field(
        4 * 1024**3, ge=1, description="size limit of one uploaded file"
    )
    trusted_signers: Annotated[tuple[Path, ...], NoDecode] = Field(
        (),
        description="public keys of minisign (.pub files, or folders of them), comma separated: "
        "import only what they signed, whatever the control plane says",
    )
    require_sandbox: bool = Field(
        False, description="refuse to import if this host lacks a layer of the sandbox"
    )
    die_with_parent: bool = Field(False, description="end when the parent process ends")
    log_level: Literal["DEBUG", "INFO", "WARNING", "ERROR"] = "INFO"
    log_json: bool = Field(True, description="log one JSON object a line")
    log_file: str = Field("", description="log to this file, rotated by its size; empty: to stderr")

    @field_validator("trusted_signers", mode="before")
    @classmethod
    def _split(cls, value: Any) -> Any:
        return split(value)

    def signers(self) -> Signers:
        """Raises OSError and ValueError for keys that can't be used."""
        return Signers(read_keys(self.trusted_signers), required=bool(self.trusted_signers))


def read_settings(arguments: list[str] | None = None) -> Settings:
    """Reads the command line (by default this process's) and the environment."""
    return CliApp.run(Settings, cli_args=arguments)
