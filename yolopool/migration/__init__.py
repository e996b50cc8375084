"""From another server to this pool: what its repository says, as steps of our own."""
