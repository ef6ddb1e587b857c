"""The service of three NF services that benchmarks move."""
