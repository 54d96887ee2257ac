"""The network's graph and its settings."""
