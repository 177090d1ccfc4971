"""Every bound, with its unit and its reason. A parser refuses what exceeds them before it works on it."""

from __future__ import annotations

from datetime import timedelta

# --- signed notes and checkpoints -----------------------------------------------------------------------
NOTE_MAX_BYTES = 128 * 1024  # 16 ML-DSA-44 lines of about 3.3 kB each must fit
NOTE_MAX_SIGNATURES = 64  # lines
TREE_SIZE_MAX = 2**63 - 1  # a signed 64-bit count, as in every C2SP implementation
KEY_NAME_MAX_BYTES = 255  # a cosigned message prefixes names and origins with an 8-bit length
TIME_MAX = 2**63 - 1  # POSIX seconds in a cosignature; C2SP stops at a signed 64-bit number
WITNESS_BODY_MAX_BYTES = NOTE_MAX_BYTES + 8 * 1024  # a note and at most 63 proof lines of 45 bytes
PROOF_MAX_HASHES = 63  # the longest proof a tree of 2**63 leaves can need
TLOG_PROOF_MAX_BYTES = NOTE_MAX_BYTES + 16 * 1024
POLICY_MAX_BYTES = 256 * 1024  # 32 logs and 32 witnesses with ML-DSA vkeys of 1.8 kB fit twice over
POLICY_MAX_LINES = 1024
COSIGNATURE_MAX_SKEW = timedelta(minutes=5)  # how far a cosignature's time may lie ahead of our clock

# --- entries --------------------------------------------------------------------------------------------
ENTRY_MAX_BYTES = 65_535  # an entry bundle prefixes each entry with a 16-bit length
ENTRY_TIME_MAX = 253_402_300_799  # UTC seconds at the end of the year 9999: what every calendar holds
STATEMENT_MAX_BYTES = 16 * 1024  # a signed payload under its closed schema
JSON_MAX_DEPTH = 8
JSON_MAX_INTEGER = 2**53 - 1  # what every JSON reader keeps exact
NAME_MAX_CHARS = 255  # project, version and file names: what file systems and databases take
SIGNATURES_MAX = 16  # signatures on one statement: k of n people, and some
SIGNATURE_MAX_BYTES = 128  # Ed25519 is 64, ECDSA P-256 in DER at most 72
PUBLIC_KEY_MAX_BYTES = 128  # SPKI in DER: Ed25519 is 44, P-256 is 91
KEYS_MAX = 256  # publisher keys of one project, compromised ones included: its state stays some 30 kB
OWNERS_MAX = 256  # accounts of one project, for the same reason
STAGED_FILES_MAX = 256  # of one release that waits for approvals: its state stays below 100 kB
AMBIENT_TOKEN_MAX_BYTES = (
    64 * 1024
)  # what a CI system answers when a job asks for its token: GitHub's have 2,000
AMBIENT_TIMEOUT = timedelta(seconds=30)  # for a CI system's own program to fetch one
CI_KEY_SECONDS = 900  # the longest life of a one-run key: a job signs what it has built, and is done
PUBLISHERS_MAX = 64  # trusted publishers of one project: it is built in few places
REPOSITORY_PROJECTS_MAX = 256  # projects that trust one repository
ANALYZERS_MAX = 64  # named in one verdict
TIMESTAMPS_MAX = 64  # digests in one `tuf` entry; a heartbeat logs one or two
MANIFEST_MAX_BYTES = 8 * 1024 * 1024  # of an import: what an auditor fetches in one answer
MANIFEST_MAX_LINES = 65_536  # of an import; longer histories are several imports, one after the other
RECOVERY_WAIT = timedelta(days=7)  # in which an old key can veto a recovery

# --- TUF ------------------------------------------------------------------------------------------------
TIMESTAMP_MAX_BYTES = 12 * 1024  # stock clients stop at 16,384; the carried checkpoint must fit below
STOCK_TIMESTAMP_MAX_BYTES = 16_384  # ngclient's own limit
ROOT_MAX_BYTES = 512_000  # ngclient's own limit
ROOT_MAX_VERSIONS = 256  # ngclient's own limit on rotations in one refresh
TRUST_FILE_MAX_BYTES = 64 * 1024  # two ML-DSA vkeys and a witness policy fit many times
TRUST_STEP_MAX_BYTES = (
    512 * 1024
)  # trust metadata, one entry and a proof whose checkpoint has every key's line
TRUST_STEPS_MAX = 64  # versions a client follows in one view; a root lists one nearer by then
BIN_MAX_BYTES = 5_000_000  # ngclient's own default for targets metadata
SNAPSHOT_MAX_BYTES = 4_000_000  # 65,536 bins take 2.2 MB
CHANGES_MAX_BYTES = 16_000_000  # 65,536 lines of up to 160 bytes
BINS_TILES_KEPT = 320  # in the client's cache, of 8 kB each: 65,536 bins have 257
BIN_BITS_MAX = 16  # 65,536 bins: beyond, the snapshot alone costs a client a third of a second
KEY_FILE_MAX_BYTES = 16 * 1024  # the largest kind (ML-DSA-44) takes 2.5 kB

BUNDLE_MAX_BYTES = 256 * (2 + ENTRY_MAX_BYTES)  # an entry bundle full of the largest entries

OFFLINE_BUNDLE_MAX_BYTES = (
    512 * 1024
)  # 10 to 20 kB, and some 4 kB for each newer root and 2 for each enrolment
BUNDLE_ENTRIES_MAX = 96  # the longest enrolment chain, the entries searched for a role key, and the publish

# --- the client's own files -----------------------------------------------------------------------------
COMPARED_MAX_BYTES = 256 * 1024 * 1024  # of a file that an approver's machine compares with the one before
LOCK_MAX_BYTES = 64 * 1024 * 1024  # a uv.lock of ten thousand packages has about 20 MB
LOCAL_FILE_MAX_BYTES = 1024 * 1024  # policy, timeline, session: kilobytes in practice
ENROLMENT_CHAIN_MAX = 64  # rotations of one project's key that a verification walks back
GENESIS_SEARCH = 16  # entries at the start of a log among which its role keys are looked for
EVIDENCE_FILE_MAX_BYTES = 8 * 1024 * 1024  # a bundle, two timestamps, roots and a bin, in base64
EXCEPTION_MAX = timedelta(days=30)  # ahead of now: who wants longer decides again
MEMORY_MAX_BYTES = 64 * 1024 * 1024  # 300,000 verified files
UNAPPLIED_MAX = 100_000  # entries between `applied` and the tree size that a verification reads

# --- time -----------------------------------------------------------------------------------------------
LEAF_TIME_MAX_LEAD = timedelta(minutes=5)  # ahead of the quorum time of the checkpoint that covers it
STATUS_APPLIED_WITHIN = timedelta(minutes=15)  # a withdrawal in the log that TUF still does not show is late
BLOB_EMBARGO = timedelta(days=8)  # evidence that an entry names by digest is open to everybody after that
PAGE_SETTLES = timedelta(minutes=2)  # what an entry changed shows on every cached page after that
TRUST_DELAY = timedelta(hours=24)  # in which monitors can cry out about a trust file that no root lists
TRUST_OVERLAP = timedelta(
    days=7
)  # after a new trust file, in which what its predecessor vouches for still counts
TIMESTAMP_LIFETIME = timedelta(hours=24)  # from signing to expiry, always
FRESH_FETCHED_WITHIN = timedelta(minutes=5)
FRESH_SIGNED_WITHIN = timedelta(minutes=75)  # hourly heartbeat and a quarter for delays
HEAD_MAX_AGE = timedelta(hours=24)  # since a quorum saw it; an idle log is cosigned anew every hour
GRACE = timedelta(
    hours=48
)  # after the 24 h of the timestamp: 24-72 h, known artifacts install with a warning

# --- network --------------------------------------------------------------------------------------------
CONNECT_TIMEOUT = timedelta(seconds=5)
READ_TIMEOUT = timedelta(seconds=30)
FETCH_MAX_BYTES = 8 * 1024 * 1024  # any one metadata file, tile or API answer
FETCH_DEADLINE = timedelta(seconds=120)  # a whole answer, so that one byte a second does not hold us
MIRRORS_MAX = 16
ATTESTATIONS_TOLD_MAX = 32  # entries read of one file, which nothing depends on
PREFETCH_FROM = 8  # files verified together; for fewer, asking ahead costs what it saves
PREFETCH_THREADS = 8  # as many as connections that are kept
PREFETCH_WORTH = timedelta(
    milliseconds=4
)  # for one answer; where they come sooner they are asked for in turn
PREFETCH_LOOK = 0.05  # seconds between two looks at how far it is
PREFETCH_MAX_BYTES = 64 * 1024 * 1024  # of answers held; then no further one is asked for ahead
MIRROR_DEADLINE = timedelta(seconds=10)  # a whole answer, where another source can be asked instead
DOWNLOAD_SLOWEST = 20_000  # bytes a second: a file of 1 GB may take 14 hours, and no longer

# --- the ssh-agent --------------------------------------------------------------------------------------
AGENT_ANSWER_MAX_BYTES = 256 * 1024  # as OpenSSH's own
AGENT_KEYS_MAX = 256
AGENT_PATIENCE = timedelta(seconds=120)  # somebody may have to touch or type something

# --- the proxy ------------------------------------------------------------------------------------------
PROXY_JUDGED_FOR = timedelta(seconds=60)  # a judgement's age; a hold acts here within 120 s of its entry
PROXY_WHOLE_BYTES = (
    64 * 1024 * 1024
)  # up to this length a file is stored and hashed before its first byte goes out
PROXY_HELD_BACK = (
    64 * 1024
)  # the end of a larger file, kept back until its hash is known: no archive opens without
PROXY_STORE_BYTES = 4 * 1024 * 1024 * 1024  # verified files kept on this disk; the longest unused go first
TEAM_USERS_MAX = 256  # credentials whose judgements are kept, of some 100 kB each
PROXY_FILES_MAX = 20_000  # files of one project that are judged: the largest on PyPI have a quarter of that
