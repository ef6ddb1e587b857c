"""Values that every other part speaks: networks, keys, records, digests, refusals, manifests, permissions.

Pure: no I/O, no clock, no chance. Nothing here imports another part of Outrider.
"""
