"""Packages: build, inspect and verify the archive that carries a service's software, SBOM and signatures."""
