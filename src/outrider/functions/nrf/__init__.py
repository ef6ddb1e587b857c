"""NRF: NF management, discovery and access tokens (TS 29.510)."""
