"""Every bound in one place, each with its reason. Units last; times in the unit that the name says."""

HOLD_LIMIT_MS = 1_000
"""A UE is held at most this long before its relocation is put off; longer than a unit may run."""

UNIT_LIMIT_MS = 800
"""A unit of work that has not answered by then is aborted with 503; below HOLD_LIMIT_MS (PROTOCOL.md §4.2)."""

WANT_LIMIT_MS = 1_500
"""How long a first request at the target waits for its grant before it is served remotely."""

WANT_BACKOFF_MS = 1_000
"""After a WANT that was not granted, requests are forwarded for so long before the next WANT."""

FORWARD_LIMIT_MS = 4_000
"""A forwarded request without an answer by then ends in 504 (unknown, safe to retry with the same key)."""

REQUEST_LIMIT_MS = 5_000
"""Deadline of a request that names none (`3gpp-Sbi-Max-Rsp-Time`)."""

QUEUE_PER_KEY = 64
"""Requests waiting for one key; one more is answered 503 at once, with no effect."""

QUEUE_TOTAL = 20_000
"""Requests waiting in one keeper; the bound of its memory under a storm."""

RESEND_MIN_MS = 100
RESEND_MAX_MS = 5_000
"""GRANT and RECALL are resent for ever (PROTOCOL.md §3.3), with a back-off between these bounds."""

IDEMPOTENCY_WINDOW_MS = 30_000
"""How long an answer is kept for retries; at least twice a consumer's longest retry time (§4.3)."""

FULL_BYTES = 16 * 1024
"""Up to this size a grant carries the whole context: no copy needed, nothing that may not fit (§7)."""

GRANT_BATCH_KEYS = 512
"""Keys in one batch of grants; the hold bound sets it, not the wire (§7)."""

RECORD_BYTES = 256 * 1024
"""Largest body of one record; a larger proposal of a worker is refused."""

REQUEST_BYTES = 1024 * 1024
"""Largest request body that the front door takes (413 beyond)."""

FRAME_BYTES = 32 * 1024 * 1024
"""Largest frame, decompressed, that a peer may send; size is checked before anything else."""

LANE_WINDOW = 4_096
"""Messages that may wait in a lane's reorder buffer before the sender is told to come back."""

COMMIT_BATCH = 512
"""Units in one group commit; more only makes the first wait longer."""

CHUNK_RECORDS = 4_000
"""Records in one bulk chunk: about 4 MB raw, under 1 MB compressed."""

LOG_BATCH = 2_000
"""Log entries in one frame of the follow stream."""

CLOCK_SKEW_LIMIT_MS = 1_000
"""Clock skew between two networks above which a migration is refused: timers would fire visibly late."""

PACKAGE_BYTES = 512 * 1024 * 1024
"""Largest package archive."""

WORKER_MEMORY_BYTES = 1024 * 1024 * 1024
"""Address space of a worker unless the manifest asks for less."""
