"""What grows with a network, and how: services, partners, concurrent migrations, state, journals. One part a module."""
