"""Training and evaluation: session, optimizer, steps, loop, checkpoints, reports."""
