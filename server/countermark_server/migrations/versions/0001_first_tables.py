"""The first tables: accounts, submissions, proposals, the head of the log, rules state, TUF and verdicts.

Revision ID: 0001
Revises: nothing
"""

from __future__ import annotations

import sqlalchemy as sa
from alembic import op

revision = "0001"
down_revision = None
branch_labels = None
depends_on = None


def upgrade() -> None:
    """From an empty database."""
    op.create_table(
        "account",
        sa.Column("id", sa.String(length=32), nullable=False),
        sa.Column("login", sa.String(length=255), nullable=False),
        sa.Column("created", sa.BigInteger(), nullable=False),
        sa.PrimaryKeyConstraint("id", name=op.f("pk_account")),
        sa.UniqueConstraint("login", name=op.f("uq_account_login")),
    )
    op.create_table(
        "head",
        sa.Column("origin", sa.String(length=255), nullable=False),
        sa.Column("body", sa.Text(), nullable=False),
        sa.Column("tree_size", sa.BigInteger(), nullable=False),
        sa.Column("edge", sa.LargeBinary(), nullable=False),
        sa.Column("staging", sa.String(length=128), nullable=True),
        sa.PrimaryKeyConstraint("origin", name=op.f("pk_head")),
    )
    op.create_table(
        "rules_state",
        sa.Column("key", sa.Text(), nullable=False),
        sa.Column("value", sa.Text(), nullable=False),
        sa.PrimaryKeyConstraint("key", name=op.f("pk_rules_state")),
    )
    op.create_table(
        "tuf_version",
        sa.Column("role", sa.String(length=64), nullable=False),
        sa.Column("version", sa.BigInteger(), nullable=False),
        sa.PrimaryKeyConstraint("role", name=op.f("pk_tuf_version")),
    )
    op.create_table(
        "tufrepo_state",
        sa.Column("key", sa.Text(), nullable=False),
        sa.Column("value", sa.Text(), nullable=False),
        sa.PrimaryKeyConstraint("key", name=op.f("pk_tufrepo_state")),
    )
    op.create_table(
        "login_code",
        sa.Column("code_sha256", sa.String(length=64), nullable=False),
        sa.Column("account_id", sa.String(length=32), nullable=False),
        sa.Column("expires", sa.BigInteger(), nullable=False),
        sa.Column("used", sa.BigInteger(), nullable=True),
        sa.ForeignKeyConstraint(["account_id"], ["account.id"], name=op.f("fk_login_code_account_id")),
        sa.PrimaryKeyConstraint("code_sha256", name=op.f("pk_login_code")),
    )
    op.create_table(
        "submission",
        sa.Column(
            "id", sa.BigInteger().with_variant(sa.Integer(), "sqlite"), autoincrement=True, nullable=False
        ),
        sa.Column("namespace", sa.String(length=255), server_default="", nullable=False),
        sa.Column("project", sa.String(length=255), nullable=False),
        sa.Column("version", sa.String(length=255), nullable=False),
        sa.Column("filename", sa.String(length=255), nullable=False),
        sa.Column("served_name", sa.String(length=255), nullable=False),
        sa.Column("display_name", sa.String(length=255), nullable=False),
        sa.Column("sha256", sa.String(length=64), nullable=False),
        sa.Column("length", sa.BigInteger(), nullable=False),
        sa.Column("filetype", sa.String(length=16), nullable=False),
        sa.Column("requires_python", sa.Text(), nullable=True),
        sa.Column("metadata_sha256", sa.String(length=64), nullable=True),
        sa.Column("uploader", sa.String(length=32), nullable=False),
        sa.Column("attestations", sa.Text(), nullable=True),
        sa.Column("uploaded", sa.BigInteger(), nullable=False),
        sa.Column("state", sa.String(length=16), nullable=False),
        sa.Column("state_since", sa.BigInteger(), nullable=False),
        sa.Column("reason", sa.Text(), nullable=True),
        sa.Column("leaf_index", sa.BigInteger(), nullable=True),
        sa.Column("leaf_hash", sa.String(length=64), nullable=True),
        sa.Column("lease_until", sa.BigInteger(), nullable=True),
        sa.Column("attempts", sa.Integer(), server_default="0", nullable=False),
        sa.ForeignKeyConstraint(["uploader"], ["account.id"], name=op.f("fk_submission_uploader")),
        sa.PrimaryKeyConstraint("id", name=op.f("pk_submission")),
        sa.UniqueConstraint(
            "namespace", "project", "filename", name=op.f("uq_submission_namespace_project_filename")
        ),
    )
    op.create_index("ix_submission_sha256", "submission", ["sha256"], unique=False)
    op.create_index("ix_submission_state_id", "submission", ["state", "id"], unique=False)
    op.create_table(
        "token",
        sa.Column("secret_sha256", sa.String(length=64), nullable=False),
        sa.Column("account_id", sa.String(length=32), nullable=False),
        sa.Column("kind", sa.String(length=16), nullable=False),
        sa.Column("created", sa.BigInteger(), nullable=False),
        sa.Column("expires", sa.BigInteger(), nullable=True),
        sa.Column("revoked", sa.BigInteger(), nullable=True),
        sa.ForeignKeyConstraint(["account_id"], ["account.id"], name=op.f("fk_token_account_id")),
        sa.PrimaryKeyConstraint("secret_sha256", name=op.f("pk_token")),
    )
    op.create_table(
        "proposal",
        sa.Column(
            "id", sa.BigInteger().with_variant(sa.Integer(), "sqlite"), autoincrement=True, nullable=False
        ),
        sa.Column("type", sa.String(length=32), nullable=False),
        sa.Column("envelope", sa.Text(), nullable=True),
        sa.Column("registry", sa.Text(), nullable=False),
        sa.Column("submission_id", sa.BigInteger().with_variant(sa.Integer(), "sqlite"), nullable=True),
        sa.Column("created", sa.BigInteger(), nullable=False),
        sa.Column("state", sa.String(length=16), nullable=False),
        sa.Column("leaf_index", sa.BigInteger(), nullable=True),
        sa.Column("leaf_hash", sa.String(length=64), nullable=True),
        sa.Column("refusal_code", sa.String(length=64), nullable=True),
        sa.Column("refusal", sa.Text(), nullable=True),
        sa.ForeignKeyConstraint(["submission_id"], ["submission.id"], name=op.f("fk_proposal_submission_id")),
        sa.PrimaryKeyConstraint("id", name=op.f("pk_proposal")),
    )
    op.create_index("ix_proposal_leaf_index", "proposal", ["leaf_index"], unique=False)
    op.create_index("ix_proposal_state_id", "proposal", ["state", "id"], unique=False)
    op.create_table(
        "tuf_candidate",
        sa.Column(
            "id", sa.BigInteger().with_variant(sa.Integer(), "sqlite"), autoincrement=True, nullable=False
        ),
        sa.Column("applied", sa.BigInteger(), nullable=False),
        sa.Column("body", sa.Text(), nullable=False),
        sa.Column("proposal_id", sa.BigInteger().with_variant(sa.Integer(), "sqlite"), nullable=True),
        sa.Column("state", sa.String(length=16), nullable=False),
        sa.ForeignKeyConstraint(["proposal_id"], ["proposal.id"], name=op.f("fk_tuf_candidate_proposal_id")),
        sa.PrimaryKeyConstraint("id", name=op.f("pk_tuf_candidate")),
    )
    op.create_table(
        "verdict",
        sa.Column("submission_id", sa.BigInteger().with_variant(sa.Integer(), "sqlite"), nullable=False),
        sa.Column("proposal_id", sa.BigInteger().with_variant(sa.Integer(), "sqlite"), nullable=False),
        sa.Column("tier", sa.String(length=16), nullable=False),
        sa.Column("body", sa.Text(), nullable=False),
        sa.ForeignKeyConstraint(["proposal_id"], ["proposal.id"], name=op.f("fk_verdict_proposal_id")),
        sa.ForeignKeyConstraint(["submission_id"], ["submission.id"], name=op.f("fk_verdict_submission_id")),
        sa.PrimaryKeyConstraint("submission_id", name=op.f("pk_verdict")),
    )


def downgrade() -> None:
    """Back to an empty database."""
    op.drop_table("verdict")
    op.drop_table("tuf_candidate")
    op.drop_index("ix_proposal_state_id", table_name="proposal")
    op.drop_index("ix_proposal_leaf_index", table_name="proposal")
    op.drop_table("proposal")
    op.drop_table("token")
    op.drop_index("ix_submission_state_id", table_name="submission")
    op.drop_index("ix_submission_sha256", table_name="submission")
    op.drop_table("submission")
    op.drop_table("login_code")
    op.drop_table("tufrepo_state")
    op.drop_table("tuf_version")
    op.drop_table("rules_state")
    op.drop_table("head")
    op.drop_table("account")
