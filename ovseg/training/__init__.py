"""Training: session, optimizer, steps, loop, checkpoints, events."""
