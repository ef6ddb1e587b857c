"""The context store: records, ownership rows, heads, log and migrations of one service at one network.

`port` is what the host needs; `sqlite` is the embedded implementation; `committer` groups commits into one fsync.
"""
