"""Every bound in one place, each with its reason. Units last; times in the unit that the name says."""

HOLD_LIMIT_MS = 1_000
"""A UE is held at most this long before its relocation is put off; longer than a unit may run."""

UNIT_LIMIT_MS = 800
"""A unit of work that has not answered by then is aborted with 503; below HOLD_LIMIT_MS (PROTOCOL.md §4.2)."""

UNIT_LEAST_MS = 50
"""A unit whose turn comes with less time left (or a tenth of what its request had) is not begun: 503, nothing done."""

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

UNIT_WAIT_MS = 500
"""A request that would wait longer for the worker, at the pace at which others before it had their turn, is refused
(503). A relocation waits for an open unit, so this is well below HOLD_LIMIT_MS."""

UNITS_WAITING = 2_000
"""Units that wait for the worker; one more is refused. Some half a second of work, should they all come at once."""

QUEUE_TOTAL = 20_000
"""Requests waiting in one keeper; the bound of its memory under a storm."""

DWELL_MS = 300
"""A context that has just come is not given on a WANT before: a UE at the edge of two networks would make it flap."""

ASSERTED_PER_S = 200
"""Arrivals per second that a target may assert without proof, at least: a train brings some hundred UEs in seconds."""

ASSERTED_SHARE_PER_S = 0.01
"""And at least this share of all UEs; above both, a target that lies gets them all in 100 s, which an operator sees."""

ASSERTED_BURST_S = 5
"""Asserted arrivals that may come at once, in seconds of that rate: groups arrive together, after none did."""

RESEND_MIN_MS = 100
RESEND_MAX_MS = 5_000
"""GRANT and RECALL are resent for ever (PROTOCOL.md §3.3), with a back-off between these bounds."""

LANE_BACKOFF_MAX_MS = 1_000
"""A lane whose link is down is tried again at least this often, so that healing is noticed at once."""

LANE_PACE_MS = 4
"""Forwards, answers and the shadow's log leave at least so long after the last post, together; whatever a change of
owner waits for leaves at once. A post costs about a millisecond of processor time on its way."""

FOLLOW_PACE_MS = 20
"""How often those who follow a log are sent what is new, at most: a frame for each commit would cost more than the
commit. By so much more a shadow may lag, and a grant's last entries may be longer."""

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

FLIPS = 8
"""Partitions on their way at the same time, so that one waits for the network while another waits for the disk."""

FLIPS_HELD = 4
"""Of these, how many are held at a time: more take the processor from each other, and requests wait for all of them."""

FRAME_BYTES = 32 * 1024 * 1024
"""Largest frame, decompressed, that a peer may send; size is checked before anything else."""

LANE_WINDOW = 4_096
"""Messages that may wait in a lane's reorder buffer before the sender is told to come back."""

COMMIT_BATCH = 512
"""Units in one group commit; more only makes the first wait longer."""

RECENT_BYTES = 64 * 1024 * 1024
"""Contexts kept in memory because requests read or wrote them lately; some 30 000 of 1 KB."""

RECENT_CONTEXT_BYTES = FULL_BYTES
"""A larger context is read from the file each time: to copy it costs more than the statement."""

RECENT_NAMES = 100_000
"""Keys of identities kept in memory, and rows of keys that are not owned here; some 20 MB each."""

CHUNK_RECORDS = 4_000
"""Records in one bulk chunk: about 4 MB raw, under 1 MB compressed."""

LOG_BATCH = 2_000
"""Log entries in one frame of the follow stream."""

DELIVERY_LIMIT_MS = 700
"""One delivery of a notification or message; below HOLD_LIMIT_MS, so a slow receiver puts a relocation off, not out."""

DELIVERIES = 128
"""Deliveries under way at once in one keeper."""

OUTBOX_BATCH = 32
"""Entries of one key delivered, one after the other, before their deletion is committed."""

TIMER_BATCH = 1_000
"""Timers looked at in one round."""

TIMER_LOOK_MS = 200
"""Longest time between two looks at the timers; bounds how late one fires whose key has just come here."""

ARRIVALS_LOOK_S = 2
"""How often the NRF is asked for AMFs to subscribe at."""

ARRIVALS_EXPIRY_S = 600
"""Expiry of a subscription at an AMF; renewed before."""

ARRIVALS_END_MS = 1_000
"""How long a keeper that stops waits for the AMF to end its subscription, which would else run out by itself."""

CLOCK_SKEW_LIMIT_MS = 1_000
"""Clock skew between two networks above which a migration is refused: timers would fire visibly late."""

PACKAGE_BYTES = 512 * 1024 * 1024
"""Largest package archive."""

PACKAGE_UNPACKED_BYTES = 1024 * 1024 * 1024
"""Everything in a package, decompressed, and its `site` folder: bounds the disk that a peer's package can claim."""

PACKAGE_ENTRIES = 2_000
"""Files in an archive, a wheel counting as one. Validating the SBOM takes seconds for so many."""

PACKAGE_SITE_FILES = 50_000
"""Files of an installed package, wheels unpacked."""

PACKAGE_RATIO = 100
"""Decompressed over compressed size of one file; source code reaches 10, only a bomb passes this."""

PACKAGE_PATH_BYTES = 240
"""Longest path in a package; leaves room for the folder that it is unpacked into."""

IMAGE_BYTES = 64 * 1024 * 1024 * 1024
"""Largest upload: the image of a service with ten million contexts; the disk's reserve bounds it before that."""

PACKAGE_META_BYTES = 16 * 1024 * 1024
"""Largest manifest, SBOM or list of digests: these are parsed in memory, unlike code and wheels."""

ADVISORY_BYTES = 64 * 1024 * 1024
"""Largest advisory, VEX document or list of exploited vulnerabilities; each is parsed in memory."""

ENVELOPE_BYTES = 256 * 1024
"""Largest signed statement (permission, revocation, contract, signature of a package)."""

ENVELOPE_SIGNATURES = 8
"""Signatures on one statement; a contract has three parties at most, each with one key, or two while it changes."""

WORKER_MEMORY_BYTES = 1024 * 1024 * 1024
"""Address space of a worker unless the manifest asks for less."""

PARTNER_REQUESTS_PER_S = 500
"""Requests per second that one partner may send to the control functions (429 beyond); lanes pace themselves."""

PARTNER_IN_FLIGHT = 256
"""Requests of one partner that may be open at a time, lanes and bulk included (429 beyond)."""

PARTNER_IN_FLIGHT_BYTES = 256 * 1024 * 1024
"""Bodies of one partner's open requests together: bounds the memory that it can claim here."""

PARTNER_LIMIT_MS = 30_000
"""How long the border waits for a partner's answer to a bulk frame; control requests end at FORWARD_LIMIT_MS."""

WORKER_IN_FLIGHT = 256
"""Units that one worker has at a time; more would only wait in its loop, longer than they may run."""

WORKER_BUFFER_BYTES = 8 * 1024 * 1024
"""Bytes that wait for a worker to read them; beyond that it is busy."""

WORKER_START_LIMIT_MS = 30_000
"""A worker that has not loaded its NF services by then is stopped: large frameworks load in a few seconds."""

WORKER_WAIT_MS = 3_000
"""How long a request waits for the worker of a keeper that has just started; most consumers wait 5 s."""

WORKER_STOP_LIMIT_MS = 3_000
"""How long a worker may take to shut its apps down before it is killed."""

WORKER_ANSWER_LIMIT_MS = 1_000
"""A worker that does not even answer a cancel by then hangs as a whole, and is killed."""

WORKER_RESTART_MIN_MS = 100
WORKER_RESTART_MAX_MS = 5_000
"""A worker that died is started again after a back-off between these bounds."""

WORKER_STEADY_MS = 10_000
"""A worker that lived so long starts again without back-off."""

WORKER_LOG_LINES_PER_S = 2_000
"""The SDK sends at most a tenth of it; a worker that writes more floods its keeper and is killed."""

WORKER_READS_PER_UNIT = 256
"""Shared objects that one unit may read; the SDK asks once for each."""

WORKER_OPEN_FILES = 128
"""File descriptors of a worker; it has no sockets to open."""

WORKER_FILE_BYTES = 16 * 1024 * 1024
"""Largest file a worker may write."""

WORKER_SCRATCH_BYTES = 64 * 1024 * 1024
WORKER_SCRATCH_FILES = 1_000
WORKER_SCRATCH_CHECK_MS = 1_000
"""Temporary files of a worker together, looked at so often; more and it is killed before it fills the store's disk."""

OFFER_LIMIT_MS = 60_000
"""An offer or an exchange of permissions without an answer by then stops the migration; nothing has moved. A human who
has to approve has longer: until the approval expires, and so long again."""

PREPARE_LIMIT_MS = 600_000
"""Longest preparation: a package of PACKAGE_BYTES takes seven minutes over 10 Mbit/s; the rest is to start it."""

TELL_INTERVAL_MS = 2_000
"""How often each LMSF tells the partner where it stands while a migration runs, also without news."""

TELL_RETRY_MIN_MS = 200
TELL_RETRY_MAX_MS = 10_000
"""Back-off while the partner cannot be told: short enough that a link that is whole again is used at once."""

TELL_LIMIT_MS = 30_000
"""A partner that was not reached for so long counts as silent: an abort whose UEs are all home ends without it."""

TELL_GIVE_UP_MS = 86_400_000
"""How long a partner is told the end of a migration before that is given up; it learns it when it asks."""

KEEPER_POLL_MS = 100
"""How often a keeper that is starting is asked whether its worker is there."""

KEEPER_WAIT_MS = 1_000
"""How long a keeper waits with its answer to whoever asks for something new: numbers for people are as old at most."""

KEEPER_COUNT_MS = 100
"""Rows are counted again after so long at the earliest, while somebody waits for what they decide."""

STORE_NOTE_MS = 5_000
"""How often a busy keeper tells its node how far its store is: an older copy than that is known as one."""

STORE_PROBE_MS = 2_000
"""A partner's store that an operator declares lost is asked once more; one that answers within this is not lost."""

LOST_KEYS = 200
"""Keys of a lost store that are named one by one; all are counted."""

POLICY_LOOK_MS = 1_000
"""How often an operator's policy files are looked at. They count once they stayed the same from one look to the next:
a policy that is just being written must not end a stay."""

DECISIONS_KEPT = 2_000
"""Decisions of the policy that are kept with their facts, to judge them again under another policy: some megabytes."""

PERMIT_CHECK_MS = 1_000
"""How often permissions and deadlines of running migrations are looked at; a revocation takes effect within 5 s."""

ABORT_ANSWER_MS = 900
"""How long an abort waits for the keeper's word before it is answered; it is typed and journalled before."""

CATALOGUE_RANGE_BYTES = 512 * 1024
"""Bytes of a package in one request, up and down: below REQUEST_BYTES, and a lost range is little to repeat."""

HOSTED_SERVICES = 256
"""Services of partners that run here at a time; an idle host takes some 60 MB, and HOST_MEMORY_BYTES stops before."""

HOST_MEMORY_BYTES = 512 * 1024 * 1024
"""Memory that must be available before a host starts that was not here before: what runs already must go on."""

DISK_RESERVE_BYTES = 256 * 1024 * 1024
"""Disk that stays free when a service is taken in: journals and stores of what runs already must go on."""

AUDIT_PAGE = 1_000
"""Events of the audit log, or heads, in one answer: some 600 KB."""

AUDIT_HEADS_PER_MIGRATION = 32
"""Heads of one partner's log that are counter-signed for one migration; it has ten phases."""

AUDIT_HEAD_BYTES = 4 * 1024
"""Largest signed head that a partner may send; one has under 1 KB."""

AUDIT_REFUSALS_MS = 60_000
"""The same refusal to the same caller is recorded once in so long, with how often: nobody fills the log."""

AUDIT_WITNESS_MS = 86_400_000
"""How long a partner is asked to counter-sign a head before that is given up."""
