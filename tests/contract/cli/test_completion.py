"""What the shell is offered: names of the pool, options and commands; nothing if nobody answers."""

import os
import subprocess
from pathlib import Path

from tests.contract.cli.command_line import CLI, environment
from tests.contract.scripted_pool import ScriptedPool

# As the installed program: the shell asks it by its name.
COMMAND = [*CLI[:2], f"import sys; sys.argv[0] = 'yolopool'; {CLI[2]}"]


def offered(pool: ScriptedPool | None, line: str, *more: str) -> list[str]:
    """The words that bash is offered behind this line."""
    words = line.split(" ")
    own = os.environ | environment(pool) | {
        "_YOLOPOOL_COMPLETE": "complete_bash",
        "COMP_WORDS": "\n".join(words),
        "COMP_CWORD": str(len(words) - 1),
    }  # fmt: skip
    done = subprocess.run(COMMAND, env=own, capture_output=True, text=True, check=False)
    assert done.stderr == ""
    return done.stdout.split()


def test_models_and_workers_of_the_pool(pool: ScriptedPool) -> None:
    assert offered(pool, "yolopool models load sh") == ["shapes"]
    assert offered(pool, "yolopool detect x.jpg --model shapes@") == ["shapes@1"]
    assert offered(pool, "yolopool detect x.jpg --model shapes:") == ["shapes:stable"]
    assert offered(pool, "yolopool workers drain ") == ["box-cpu"]
    other = f"yolopool bench --address {pool.address} --worker "
    assert offered(None, other) == ["box-cpu"]


def test_nobody_answers_and_nothing_is_said() -> None:
    assert offered(None, "yolopool models load ") == []


def test_commands_and_options(pool: ScriptedPool) -> None:
    assert offered(pool, "yolopool mod") == ["models"]
    assert offered(pool, "yolopool detect --jpeg") == ["--jpeg-quality"]
    assert pool.script.calls == []


def test_it_is_installed(tmp_path: Path) -> None:
    own = os.environ | {"HOME": str(tmp_path), "_TYPER_COMPLETE_TEST_DISABLE_SHELL_DETECTION": "1"}
    command = [*COMMAND, "--install-completion", "bash"]
    done = subprocess.run(command, env=own, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    assert (tmp_path / ".bash_completions" / "yolopool.sh").exists()
    assert "yolopool.sh" in (tmp_path / ".bashrc").read_text()
