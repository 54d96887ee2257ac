"""Finding, loading, saving and publishing checkpoints."""
