"""What every test needs before the model library is imported: no network, no installs, and a
folder of its own for the files it writes at import.
"""

import os
import tempfile

os.environ["YOLO_OFFLINE"] = "1"
os.environ["YOLO_AUTOINSTALL"] = "false"
os.environ["ULTRALYTICS_SAFE_LOAD"] = "1"
os.environ.setdefault("YOLO_CONFIG_DIR", tempfile.mkdtemp(prefix="yolopool-tests-"))
