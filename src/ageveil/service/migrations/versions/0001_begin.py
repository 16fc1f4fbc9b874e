"""Parties, checks and the ledger."""

import sqlalchemy as sa
from alembic import op

revision, down_revision = "0001", None


def upgrade() -> None:
    """Make the tables, and the row that names the end of an empty chain."""
    op.create_table(
        "parties",
        sa.Column("id", sa.String(40), primary_key=True),
        sa.Column("key_digest", sa.String(64), nullable=False, unique=True),
        sa.Column("audiences", sa.JSON, nullable=False),
        sa.Column("created", sa.BigInteger, nullable=False),
    )
    op.create_table(
        "checks",
        sa.Column("id", sa.String(32), primary_key=True),
        sa.Column("party", sa.String(40), sa.ForeignKey("parties.id", ondelete="CASCADE"), nullable=False),
        sa.Column("audience", sa.String(300), nullable=False),
        sa.Column("nonce", sa.String(128), nullable=False),
        sa.Column("secret_digest", sa.String(64), nullable=False),
        sa.Column("board", sa.String(20)),
        sa.Column("mark", sa.String(40)),
        sa.Column("minimum_age", sa.Integer),
        sa.Column("accompanied", sa.Boolean, nullable=False),
        sa.Column("modes", sa.JSON, nullable=False),
        sa.Column("tries_left", sa.Integer, nullable=False),
        sa.Column("expires", sa.BigInteger, nullable=False, index=True),
        sa.Column("version", sa.Integer, nullable=False),
        sa.Column("answer", sa.JSON),
        sa.Column("jti", sa.String(32), unique=True),
        sa.Column("completed_minute", sa.BigInteger),
        sa.Column("redeemed", sa.Boolean, nullable=False),
        sa.UniqueConstraint("party", "nonce", name="nonce_once"),
    )
    op.create_table(
        "ledger",
        sa.Column(
            "sequence",
            sa.BigInteger().with_variant(sa.Integer, "sqlite"),
            primary_key=True,
            autoincrement=False,
        ),
        sa.Column("minute", sa.BigInteger, nullable=False, index=True),
        sa.Column("kind", sa.String(20), nullable=False),
        sa.Column("record", sa.Text, nullable=False),
        sa.Column("previous", sa.String(64), nullable=False),
        sa.Column("hash", sa.String(64), nullable=False),
    )
    end = op.create_table(
        "ledger_end",
        sa.Column("id", sa.Integer, primary_key=True, autoincrement=False),
        sa.Column("sequence", sa.BigInteger, nullable=False),
        sa.Column("hash", sa.String(64), nullable=False),
        sa.Column("signature", sa.Text),
        sa.Column("checkpoint", sa.Text),
    )
    op.bulk_insert(end, [{"id": 1, "sequence": 0, "hash": "0" * 64}])


def downgrade() -> None:
    """There is nothing before the first version."""
    for table in ("ledger_end", "ledger", "checks", "parties"):
        op.drop_table(table)
