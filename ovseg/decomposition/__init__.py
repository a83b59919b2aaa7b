"""What holds a model back: its masks, their names, or how both are put together."""
