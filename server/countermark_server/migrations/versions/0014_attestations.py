"""What is known of the PEP 740 attestations that came with files.

Revision ID: 0014
Revises: 0010
"""

from __future__ import annotations

import json
from typing import Any

import sqlalchemy as sa
from alembic import op

revision = "0014"
down_revision = "0010"
branch_labels = None
depends_on = None


def upgrade() -> None:
    """One table; what came before is due at once."""
    table = op.create_table(
        "attestation",
        sa.Column("submission_id", sa.BigInteger().with_variant(sa.Integer(), "sqlite"), nullable=False),
        sa.Column("number", sa.Integer(), autoincrement=False, nullable=False),
        sa.Column("due", sa.BigInteger(), nullable=True),
        sa.Column("attempts", sa.Integer(), server_default="0", nullable=False),
        sa.Column("verified", sa.String(length=16), nullable=True),
        sa.Column("checker", sa.String(length=255), nullable=True),
        sa.Column("reason", sa.Text(), nullable=True),
        sa.Column("predicate_type", sa.Text(), nullable=True),
        sa.Column("identity", sa.Text(), nullable=True),
        sa.Column("publisher_index", sa.BigInteger(), nullable=True),
        sa.Column("blob_sha256", sa.String(length=64), nullable=True),
        sa.Column("proposal_id", sa.BigInteger(), nullable=True),
        sa.Column("leaf_index", sa.BigInteger(), nullable=True),
        sa.ForeignKeyConstraint(
            ["submission_id"],
            ["submission.id"],
            name=op.f("fk_attestation_submission_id"),
            ondelete="CASCADE",
        ),
        sa.PrimaryKeyConstraint("submission_id", "number", name=op.f("pk_attestation")),
    )
    op.create_index("ix_attestation_due", "attestation", ["due"])
    known = sa.table("submission", sa.column("id"), sa.column("attestations"))
    query = sa.select(known.c.id, known.c.attestations)
    found = op.get_bind().execute(query.where(known.c.attestations.contains('"verification_material"'))).all()
    rows = [
        {"submission_id": each, "number": number, "due": 0}
        for each, text in found
        for number in _genuine(text)
    ]
    if rows:
        op.get_bind().execute(sa.insert(table), rows)


def _genuine(text: str) -> list[int]:
    """Which objects of an uploaded array are PEP 740's; of older uploads nobody checked the form."""
    listed: Any = json.loads(text)
    return [
        number
        for number, item in enumerate(listed)
        if isinstance(item, dict) and {"verification_material", "envelope"} <= item.keys()
    ]


def downgrade() -> None:
    """The entries stay in the log, the objects with their files."""
    op.drop_index("ix_attestation_due", table_name="attestation")
    op.drop_table("attestation")
