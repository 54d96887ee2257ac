"""The sub-commands of `serank`, a file for each."""
