"""What a caller's process pays for the client, and whom it can live beside."""

import ast
import subprocess
import sys

HEAVY = (
    "torch", "redis", "cv2", "ultralytics", "starlette", "structlog", "control_plane", "av",
    "pandas", "supervision", "trackers",
    # Its symbols are tritonclient's too.
    "yolopool.kserve",
)  # fmt: skip


def run(code: str, *words: str) -> str:
    done = subprocess.run(
        [sys.executable, "-W", "error", "-c", code, *words],
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    return done.stdout


def test_the_client_loads_no_server_library() -> None:
    loaded = run(
        "import sys, yolopool, yolopool.cli.main; yolopool.Client, yolopool.AsyncClient\n"
        f"print([name for name in {HEAVY} if name in sys.modules])"
    )
    assert loaded.strip() == "[]"


def test_a_command_loads_no_other() -> None:
    """Help comes at once, and what runs does not wait for what does not."""
    loaded = (
        "import sys; from yolopool.cli.main import app\n"
        "try: app(sys.argv[1:])\n"
        "except SystemExit: pass\n"
        f"names = [*{HEAVY}, 'grpc', 'numpy', 'PIL', 'yaml']\n"
        "print([name for name in names if name in sys.modules])\n"
        "print([name for name in sys.modules if name.startswith('yolopool.cli.')])"
    )
    for words in (["--help"], ["version"]):
        libraries, commands = run(loaded, *words).splitlines()[-2:]
        assert libraries == "[]"
        assert len(ast.literal_eval(commands)) <= 4, commands
    commands = ast.literal_eval(run(loaded, "status", "--help").splitlines()[-1])
    assert {"yolopool.cli.models", "yolopool.cli.top"}.isdisjoint(commands)


def test_errors_alone_load_no_grpc() -> None:
    assert run("import sys, yolopool.errors; print('grpc' in sys.modules)").strip() == "False"


def test_lives_beside_tritonclient() -> None:
    run(
        "import warnings\n"
        "with warnings.catch_warnings():\n"
        "    warnings.simplefilter('ignore')\n"  # tritonclient's own
        "    import tritonclient.grpc as triton\n"
        "import yolopool\n"
        "yolopool.Client('127.0.0.1:1').close()\n"
        "triton.InferenceServerClient('127.0.0.1:1').close()\n"
        "from yolopool.v1 import detection_pb2, worker_pb2\n"
        "import yolopool.cli.main, yolopool.local.pool\n"
    )


def test_every_public_name_is_there() -> None:
    run("import yolopool\nfor name in yolopool.__all__:\n    getattr(yolopool, name)\n")
    run("from yolopool import *\nassert Client and DetectOptions and QueueFull")


def test_the_client_loads_no_command_line() -> None:
    loaded = run(
        "import sys, yolopool; yolopool.Client, yolopool.AsyncClient\n"
        "print([name for name in ('typer', 'rich', 'click') if name in sys.modules])"
    )
    assert loaded.strip() == "[]"


def test_what_needs_an_extra_names_it() -> None:
    run(
        "import sys\n"
        "for name in ('av', 'trackers', 'pandas'):\n"
        "    sys.modules[name] = None\n"  # as if it were not installed
        "from yolopool import Client, Detections, errors\n"
        "from yolopool.client.media.tracking import Tracker\n"
        "import numpy as np\n"
        "none = np.zeros(0, np.float32)\n"
        "found = Detections(none.reshape(0, 4), none, none.astype(np.int64), ())\n"
        "ways = {\n"
        "    \"'yolopool[video]'\": lambda: next(Client('127.0.0.1:1').detect_video(0, 'm')),\n"
        "    \"'yolopool[tracking]'\": lambda: Tracker(25.0),\n"
        "    'pip install pandas': found.to_pandas,\n"
        "}\n"
        "for extra, way in ways.items():\n"
        "    try:\n"
        "        way()\n"
        "    except (errors.ExtraMissing, ImportError) as error:\n"
        "        assert extra in str(error), error\n"
        "    else:\n"
        "        raise AssertionError(extra)\n"
    )
