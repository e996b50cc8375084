"""From measured passes and a rate to the batching that reaches a p99 goal. Pure."""
