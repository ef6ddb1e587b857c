"""The state machines, free of I/O: ownership of one key, and the phases of a migration.

Both are tables of rules (`table`), driven by `step(row, vol, event) -> Step`. Production, tests, the exhaustive
search and the diagrams in the documentation read the same tables.
"""
