"""The composition root: builds a node from its configuration and runs it."""
