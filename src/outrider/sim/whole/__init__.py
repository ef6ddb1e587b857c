"""Whole hosts in a simulated world: production code above its ports, with virtual time, seeded chance and faults."""
