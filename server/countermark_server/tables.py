"""The tables that stations share.

Some are declared in modules of their own, in the same metadata: those of organisations and browsers (orgtables.py),
attestations (attested.py) and serials (serials.py). `db` has them all.

Schema changes go through Alembic (`migrations/`), from the first table on.
"""

from __future__ import annotations

from sqlalchemy import (
    BigInteger,
    Boolean,
    Column,
    ForeignKey,
    Index,
    Integer,
    LargeBinary,
    MetaData,
    String,
    Table,
    Text,
    UniqueConstraint,
    false,
)

metadata = MetaData(
    naming_convention={
        "ix": "ix_%(table_name)s_%(column_0_N_name)s",
        "uq": "uq_%(table_name)s_%(column_0_N_name)s",
        "fk": "fk_%(table_name)s_%(column_0_N_name)s",
        "pk": "pk_%(table_name)s",
    }
)
# SQLite gives row ids only to INTEGER; PostgreSQL wants 64 bits.
RowId = BigInteger().with_variant(Integer, "sqlite")
# Keys of the rules' state, ordered by their bytes: those of one project's files lie side by side.
StateKey = Text().with_variant(Text(collation="C"), "postgresql")

# --- accounts: people, and what they hold -----------------------------------------------------------------
account = Table(
    "account",
    metadata,
    Column("id", String(32), primary_key=True),  # 16 random bytes in hex: the pseudonym in leaves
    Column(
        "login", String(255), nullable=False, unique=True
    ),  # mapped here only; deleting it erases the person
    Column("created", BigInteger, nullable=False),
    # A service account: nobody signs in as it, its owner makes its tokens, and with the owner or on this day it ends.
    Column("owner", ForeignKey("account.id"), nullable=True),
    Column("expires", BigInteger, nullable=True),
)
login_code = Table(
    "login_code",
    metadata,
    Column("code_sha256", String(64), primary_key=True),
    Column("account_id", ForeignKey("account.id"), nullable=False),
    Column("expires", BigInteger, nullable=False),
    Column("used", BigInteger, nullable=True),
)
token = Table(
    "token",
    metadata,
    Column("secret_sha256", String(64), primary_key=True),
    Column("account_id", ForeignKey("account.id"), nullable=False),
    Column("kind", String(16), nullable=False),  # "session" may enrol keys; "upload" may only upload
    Column("created", BigInteger, nullable=False),
    Column("expires", BigInteger, nullable=True),
    Column("revoked", BigInteger, nullable=True),
    Column(
        "id", String(16), nullable=False, unique=True
    ),  # by which people speak of it; the secret is elsewhere
    Column("name", String(64), nullable=True),  # what its owner calls it
    Column("projects", Text, nullable=True),  # JSON array of names and patterns; null: all of the account's
    Column("actions", Text, nullable=True),  # JSON array; null: all that its kind may do
    Column("identity", Text, nullable=True),  # JSON: the CI job that a token of the kind "job" was made for
)
job_token = Table(
    "job_token",
    metadata,
    # Tokens of CI jobs that were used; the row is unique, so each is used once, whichever worker it came by.
    Column("use_sha256", String(64), primary_key=True),
    Column("used", BigInteger, nullable=False),
    Column("expires", BigInteger, nullable=False),
    Column("salt", String(64), nullable=True),  # of the digest of who started the job
)
token_use = Table(
    "token_use",
    metadata,
    # Apart from the tokens, since a use is noted even when the request is refused; to within the hour.
    Column("token_id", ForeignKey("token.id", ondelete="CASCADE"), primary_key=True),
    Column("last_used", BigInteger, nullable=False),
)

sign_in = Table(
    "sign_in",
    metadata,
    # A machine that waits for a person, and the browser in which that person signs in (accounts/signin.py).
    Column("device_sha256", String(64), primary_key=True),
    Column("user_code", String(16), nullable=False, unique=True),
    Column("expires", BigInteger, nullable=False),
    Column("state_sha256", String(64), nullable=True, unique=True),
    Column("cookie_sha256", String(64), nullable=True),
    Column("nonce", String(64), nullable=True),
    Column("verifier", String(64), nullable=True),
    Column("account_id", ForeignKey("account.id"), nullable=True),
    Column("granted", Boolean, nullable=False, server_default=false()),
)
identity = Table(
    "identity",
    metadata,
    # Who came by the identity provider, and when it last vouched for them.
    Column("issuer", String(255), primary_key=True),
    Column("subject", String(255), primary_key=True),
    Column("account_id", ForeignKey("account.id", ondelete="CASCADE"), nullable=False, unique=True),
    Column("refresh", Text, nullable=False),  # refresh token, sealed (accounts/sealed.py)
    Column("checked", BigInteger, nullable=False),
    Column("asking", BigInteger, nullable=True),  # since when some process asks the provider
    Column("gone", BigInteger, nullable=True),  # since when it vouches no longer; a new sign-in ends that
)
spending = Table(
    "spending",
    metadata,
    # What an account or a project has brought in, against [limits] (accounts/allowance.py).
    Column("kind", String(16), primary_key=True),  # account | project
    Column("name", String(255), primary_key=True),
    Column("shard", Integer, primary_key=True),
    Column("bytes", BigInteger, nullable=False),  # of files, in all
    Column("day", BigInteger, nullable=False),  # days since 1970, UTC, that the counts below are of
    Column("entries", BigInteger, nullable=False),
    Column("projects", BigInteger, nullable=False),  # begun
)

# --- submissions: artifacts on their journey (journey.py) --------------------------------------------------
submission = Table(
    "submission",
    metadata,
    Column("id", RowId, primary_key=True, autoincrement=True),
    Column("namespace", String(255), nullable=False, server_default=""),
    Column("project", String(255), nullable=False),  # normalised (PEP 503)
    Column("version", String(255), nullable=False),
    Column("filename", String(255), nullable=False),  # normalised; unique for ever within its project
    Column("served_name", String(255), nullable=False),  # as its publisher spells it: served, signed, shown
    Column("display_name", String(255), nullable=False),  # the project's name as its author writes it
    Column("sha256", String(64), nullable=False),
    Column("length", BigInteger, nullable=False),
    Column("filetype", String(16), nullable=False),  # bdist_wheel | sdist
    Column("requires_python", Text, nullable=True),
    Column("metadata_sha256", String(64), nullable=True),  # of METADATA / PKG-INFO, a blob too
    Column("uploader", ForeignKey("account.id"), nullable=True),  # null: an import brought it in
    Column("import_index", BigInteger, nullable=True),  # of the import entry, where one did
    Column("attestations", Text, nullable=True),  # the JSON array as uploaded, verbatim
    Column("uploaded", BigInteger, nullable=False),  # UTC seconds; of an imported file its leaf's time
    Column("state", String(16), nullable=False),
    Column("state_since", BigInteger, nullable=False),
    Column("reason", Text, nullable=True),  # why it is held or rejected, in words
    Column("leaf_index", BigInteger, nullable=True),
    Column("leaf_hash", String(64), nullable=True),
    Column("lease_until", BigInteger, nullable=True),  # a worker's claim; past it, another may take over
    Column("attempts", Integer, nullable=False, server_default="0"),
    UniqueConstraint("namespace", "project", "filename"),
    Index("ix_submission_state_id", "state", "id"),
    Index("ix_submission_state_import_index_id", "state", "import_index", "id"),
    Index("ix_submission_sha256", "sha256"),
)

# --- statements that came ahead of their file (upload/ahead.py) -------------------------------------------
statement_ahead = Table(
    "statement_ahead",
    metadata,
    Column("namespace", String(255), primary_key=True),
    Column("project", String(255), primary_key=True),
    Column("filename", String(255), primary_key=True),  # normalised, as in `submission`
    Column("sha256", String(64), primary_key=True),
    Column("account_id", ForeignKey("account.id"), nullable=False),
    Column("envelope", Text, nullable=False),  # DSSE envelope as JSON
    Column("expires", BigInteger, nullable=False),
    Index("ix_statement_ahead_account_id", "account_id"),
    Index("ix_statement_ahead_expires", "expires"),
)

# --- proposals: entries that ask for a place in the log ----------------------------------------------------
proposal = Table(
    "proposal",
    metadata,
    Column("id", RowId, primary_key=True, autoincrement=True),
    Column("type", String(32), nullable=False),
    Column("envelope", Text, nullable=True),  # DSSE envelope as JSON, or null (opaque)
    Column("registry", Text, nullable=False),  # what the registry adds, as canonical JSON
    # A door has checked the entry's form, and each signature by the key it names: facts about bytes, which need
    # not be found out twice. Whether the keys may sign is judged with the state (docs/adr).
    Column("verified", Boolean, nullable=False, server_default=false()),
    Column("submission_id", ForeignKey("submission.id"), nullable=True),
    Column("created", BigInteger, nullable=False),
    Column("state", String(16), nullable=False),  # pending | sequenced | published | refused
    Column("leaf_index", BigInteger, nullable=True),
    Column("leaf_hash", String(64), nullable=True),
    Column("refusal_code", String(64), nullable=True),
    Column("refusal", Text, nullable=True),
    Index("ix_proposal_state_id", "state", "id"),
    Index("ix_proposal_leaf_index", "leaf_index"),
)

# --- the log: the one row that decides ---------------------------------------------------------------------
head = Table(
    "head",
    metadata,
    Column("origin", String(255), primary_key=True),
    Column("body", Text, nullable=False),  # the newest checkpoint signed by the log, compared on every swap
    Column("tree_size", BigInteger, nullable=False),
    Column("edge", LargeBinary, nullable=False),  # right edge of the tree: 32 bytes a peak
    Column("staging", String(128), nullable=True),  # staging bundle not known to be applied yet
)
rules_state = Table(
    "rules_state",
    metadata,
    Column("key", StateKey, primary_key=True),  # JSON array of strings: a key of countermark.rules
    Column("value", Text, nullable=False),  # JSON object
)
logged_elsewhere = Table(
    "logged_elsewhere",
    metadata,
    # Files that some other registry serves, by their hash; kept by ruleview.py beside the state it repeats.
    Column("namespace", String(255), primary_key=True),
    Column("project", String(255), primary_key=True),
    Column("filename", String(255), primary_key=True),  # normalised, as in the rules' key
    Column("sha256", String(64), nullable=False),
    Column("leaf_index", BigInteger, nullable=False),
    Index("ix_logged_elsewhere_sha256_leaf_index", "sha256", "leaf_index"),
)

project_name = Table(
    "project_name",
    metadata,
    # Projects of the default namespace by what people confuse their names with (confusable.py); kept by ruleview.py.
    Column("skeleton", String(255), primary_key=True),
    Column("project", String(255), primary_key=True),
)

closing = Table(
    "closing",
    metadata,
    Column("origin", String(255), primary_key=True),
    Column("since", BigInteger, nullable=False),  # from here on no door takes anything
    Column("reason", String(32), nullable=False),
    Column("last_candidate", BigInteger, nullable=True),  # the TUF publish that will stay
)

# --- tufrepo -----------------------------------------------------------------------------------------------
tufrepo_state = Table(
    "tufrepo_state",
    metadata,
    Column("key", StateKey, primary_key=True),  # tufrepo's own replay of the log, up to what it applied
    Column("value", Text, nullable=False),
)
tuf_version = Table(
    "tuf_version",
    metadata,
    Column("role", String(64), primary_key=True),
    Column("version", BigInteger, nullable=False),  # claimed durably before anything is signed
)
tuf_candidate = Table(
    "tuf_candidate",
    metadata,
    Column("id", RowId, primary_key=True, autoincrement=True),
    Column("applied", BigInteger, nullable=False),
    Column("body", Text, nullable=False),  # JSON: digests, bins root, changed bins
    Column("proposal_id", ForeignKey("proposal.id"), nullable=True),
    Column("state", String(16), nullable=False),  # written | logged | timestamped
)

# --- scan --------------------------------------------------------------------------------------------------
verdict = Table(
    "verdict",
    metadata,
    Column("submission_id", ForeignKey("submission.id"), primary_key=True),
    Column("proposal_id", ForeignKey("proposal.id"), nullable=False),
    Column("tier", String(16), nullable=False),
    Column("body", Text, nullable=False),  # findings as JSON
)
