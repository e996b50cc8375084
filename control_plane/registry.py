"""The registry: desired state, the reconciler's lease and the import queue. The only state store.

`Registry` is the door; `MemoryRegistry` beside it is its executable specification, and one
contract suite runs on both. Every write is atomic and answers what it changed.
"""
