"""Every YAML file of the model library: imported, built as a worker builds it, and run beside the
library's own fused model. What is served differs by nothing; what is not is refused and told why.

python -m benchmarks.families
python -m benchmarks.families --scales all --match 'yolo11|yolov8'
"""

import argparse
import gc
import os
import re
import sys
import tempfile
import time
from collections.abc import Sequence
from pathlib import Path

from benchmarks.harness import families, hardware, results
from benchmarks.harness.results import Check, Result, Row
from yolopool.v1 import types_pb2
from yolopool.v1.types_pb2 import HEAD_MODE_END_TO_END, HEAD_MODE_UNSPECIFIED

# Of one image, a multiple of every stride there is.
_SIZE = (192, 128)
# What is not meant to be served: prompted models, other tasks, a torchvision network in disguise.
ODD = re.compile("rtdetr|yoloe|world|-sem|-depth|resnet18")


def flags() -> argparse.ArgumentParser:
    """The command line."""
    parser = argparse.ArgumentParser(prog="benchmarks.families", description=__doc__)
    results.add_flags(parser)
    parser.add_argument("--scales", choices=("first", "all"), default="first", help="of each file")
    parser.add_argument("--match", default="", help="only names that this expression finds")
    return parser


def rows_of(name: str, folder: Path) -> list[Row]:
    """One file of the library: what its import gave with each head, and how far the pack is from
    the library.
    """
    from tests.models import build, save

    checkpoint = folder / "model.pt"
    try:
        save(build(f"{name}.yaml", 0), checkpoint)
    except Exception as error:  # that the library can't is a finding of this table
        line = str(error).splitlines()[0]
        return [{"name": name, "refused": f"the library does not build it here: {line[:160]}"}]
    first = row_of(name, checkpoint, folder, HEAD_MODE_UNSPECIFIED)
    if first.get("task") in (None, "classify"):
        return [first]
    second = row_of(name, checkpoint, folder, HEAD_MODE_END_TO_END)
    return [first] if "refused" in second else [first, second]


def row_of(
    name: str, checkpoint: Path, folder: Path, head_mode: "types_pb2.HeadMode.ValueType"
) -> Row:
    """One import of one checkpoint."""
    import torch

    from importer.refusal import ImportRefused
    from tests.models import picture
    from worker.packs.pack_store import PackStore

    started = time.perf_counter()
    try:
        place = families.import_here(checkpoint, folder / "pack", head_mode=head_mode)
    except ImportRefused as refusal:
        return {"name": name, "refused": refusal.message}
    import_s = time.perf_counter() - started
    pack = PackStore(folder).fetch(place)
    image = torch.from_numpy(picture(0, *_SIZE)).permute(2, 0, 1)[None].float() / 255
    end_to_end = head_mode == HEAD_MODE_END_TO_END
    manifest, worst = pack.manifest, families.difference(checkpoint, pack, image, end_to_end)
    pack.close()
    return {
        "name": name,
        "task": manifest.task,
        "head": "end-to-end" if end_to_end else "",
        "parameters_m": manifest.parameters / 1e6,
        "activation_mb_per_mpx": manifest.activation_bytes_per_megapixel / 1e6,
        "import_s": import_s,
        "largest_difference": worst,
    }


def run(options: argparse.Namespace) -> Result:
    """All files, one after the other."""
    machine, started_at = hardware.describe(), results.now()
    rows: list[Row] = []
    with tempfile.TemporaryDirectory() as scratch:
        os.environ.update(YOLO_OFFLINE="1", YOLO_AUTOINSTALL="false", ULTRALYTICS_SAFE_LOAD="1")
        os.environ.update(YOLO_CONFIG_DIR=scratch, YOLO_VERBOSE="false")
        for file in families.library_files(options.scales == "all"):
            if re.search(options.match, file.name):
                rows += rows_of(file.name, Path(scratch))
                print(rows[-1], file=sys.stderr, flush=True)
                gc.collect()
    served = [row for row in rows if "task" in row]
    refused = [row for row in rows if "refused" in row]
    unlike = [row["name"] for row in served if row["largest_difference"]]
    ours = [row["name"] for row in refused if not ODD.search(str(row["name"]))]
    counts = f"{len(served)} served, {len(refused)} refused"
    return Result(
        scenario="families",
        started_at=started_at,
        settings=results.settings_of(options),
        hardware=machine,
        tables={"served": tuple(served), "not served": tuple(refused)},
        checks=(
            Check("no difference to the library", not unlike, f"{counts}; unlike: {unlike}"),
            Check(
                "only odd ones are refused", not ours, f"{len(refused)} refused, of ours: {ours}"
            ),
        ),
    )


def main(arguments: Sequence[str] | None = None) -> int:
    """Runs the scenario; answers the exit status."""
    options = flags().parse_args(arguments)
    return results.publish(run(options), options.results)


if __name__ == "__main__":
    sys.exit(main())
