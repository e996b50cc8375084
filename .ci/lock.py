"""Writes deploy/requirements/: every package of an image, pinned and with the hashes of its files.

    python .ci/lock.py [--torch-index https://download.pytorch.org/whl/cpu]

Releases are those of constraints.txt; hashes are of PyPI. torch for the CPU is on an index of its
own: where that can't be reached, its file is left as it is.
"""

import argparse
import subprocess
import sys
from pathlib import Path

FOLDER = Path("deploy/requirements")
# What an image is built for.
PYTHON, PLATFORM = "3.11.9", "x86_64-manylinux_2_28"
TORCH_INDEX = "https://download.pytorch.org/whl/cpu"
TORCH = ("torch==2.13.0", "torchvision==0.28.0")
# The stand-in for opencv-python is ours, and not on an index.
STAND_IN, OPENCV = "opencv-python", "opencv-python-headless==5.0.0.93"
# What makes wheels of ours: pyproject.toml asks for it.
BUILD = "hatchling"
IMAGES = {
    "control-plane": ("control-plane",),
    "worker": ("worker",),
    "worker-cpu": ("worker", "onnx", "openvino"),
}
_HEAD = "# Made by `make lock`: do not edit. {}\n"


def main() -> int:
    parser = argparse.ArgumentParser()
    parser.add_argument("--torch-index", default="", help=f"usually {TORCH_INDEX}")
    torch_index = parser.parse_args().torch_index
    FOLDER.mkdir(exist_ok=True)
    for image, extras in IMAGES.items():
        text = compiled(image, extras)
        kept, note = entries(text), f"For Python {PYTHON[:4]}, x86_64."
        if image == "worker-cpu":
            kept = [one for one in kept if not is_of_torch(one)]
            note = "torch is in torch-cpu.txt."
        (FOLDER / f"{image}.txt").write_text(_HEAD.format(note) + "".join(kept))
    (FOLDER / "build.txt").write_text(_HEAD.format("It makes wheels.") + run(["-"], BUILD))
    if torch_index:
        lines = "\n".join(f"{name}+cpu" for name in TORCH)
        text = run(["-", "--no-deps", "--index-url", torch_index], lines)
        (FOLDER / "torch-cpu.txt").write_text(_HEAD.format(f"From {torch_index}") + text)
    return 0


def compiled(image: str, extras: tuple[str, ...]) -> str:
    chosen = [part for extra in extras for part in ("--extra", extra)]
    # Of the worker's image for GPUs torch is what PyPI has.
    pins = "\n".join(TORCH) if "worker" in extras else ""
    source = ["pyproject.toml", *chosen, "--no-emit-package", STAND_IN]
    return run([*source, "-"] if pins else source, f"{pins}\n{OPENCV}" if pins else "")


def run(arguments: list[str], requirements: str) -> str:
    command = [
        sys.executable, "-m", "uv", "pip", "compile", "--quiet", "--generate-hashes",
        "--no-header", "--no-annotate", "--system-certs", "-c", "constraints.txt",
        "--python-version", PYTHON, "--python-platform", PLATFORM, *arguments,
    ]  # fmt: skip
    done = subprocess.run(command, input=requirements, capture_output=True, text=True, check=False)
    if done.returncode:
        raise SystemExit(f"uv could not resolve it:\n{done.stderr}")
    return done.stdout


def is_of_torch(entry: str) -> bool:
    """Whether it is torch, or what torch for CUDA brings."""
    brought = entry.startswith(("torch", "nvidia-", "cuda-", "triton"))
    return brought and not entry.startswith("nvidia-ml-py=")


def entries(text: str) -> list[str]:
    """A package with its hashes each."""
    found: list[str] = []
    for line in text.splitlines(keepends=True):
        if line.startswith(" ") and found:
            found[-1] += line
        elif line.strip() and not line.startswith("#"):
            found.append(line)
    return found


if __name__ == "__main__":
    sys.exit(main())
