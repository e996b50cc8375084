"""`yolopool models evaluate` and `gate`, and `yolopool store`."""
