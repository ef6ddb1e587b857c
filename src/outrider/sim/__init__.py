"""Worlds in which the machines are tried: exhaustive search now; clock, faults and checkers observe, never drive."""
