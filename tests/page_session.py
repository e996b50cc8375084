"""Runs the Python blocks of one page in one namespace, as a person pastes them one after another.

Reads a JSON string a line from stdin and answers with one a line on stdout: what the block printed,
and the traceback if it failed. A process of its own, since pages import what can't be imported
beside other pages' (two copies of the KServe protos, torch).
"""

import contextlib
import io
import json
import sys
import traceback
import warnings


def main() -> None:
    namespace: dict[str, object] = {"__name__": "__main__"}
    warnings.simplefilter("error", DeprecationWarning)
    for line in sys.stdin:
        name, source = json.loads(line)
        printed, failed = io.StringIO(), ""
        with contextlib.redirect_stdout(printed):
            try:
                exec(compile(source, name, "exec"), namespace)
            except BaseException:
                failed = traceback.format_exc()
        sys.stdout.write(json.dumps([printed.getvalue(), failed]) + "\n")
        sys.stdout.flush()


if __name__ == "__main__":
    main()
