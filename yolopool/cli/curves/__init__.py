"""`yolopool bench`: batch-latency curves."""
