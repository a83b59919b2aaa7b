"""Tests of ovseg; helpers shared between them are in `tests.helpers`."""
