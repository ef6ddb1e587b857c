"""LMSF: negotiates, permits, prepares, drives and ends migrations (`nlmsf-*`)."""
