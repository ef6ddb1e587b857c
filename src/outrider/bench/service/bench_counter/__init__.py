"""The service that benchmarks move."""
