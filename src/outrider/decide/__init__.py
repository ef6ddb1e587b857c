"""Judgements over core values: each returns a decision with its reasons, and does no I/O."""
