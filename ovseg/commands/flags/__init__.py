"""The command lines. Nothing in here imports torch, or a part of the package that does."""
