"""What picked a round's batch, and what its training did otherwise than asked."""

import sqlalchemy as sa
from alembic import op

revision = "0002"
down_revision = "0001"
branch_labels = None
depends_on = None


def upgrade() -> None:
    op.add_column("rounds", sa.Column("strategy", sa.Text, nullable=False, server_default=""))
    op.add_column("rounds", sa.Column("strategy_reason", sa.Text, nullable=False, server_default=""))
    op.add_column("rounds", sa.Column("notes", sa.JSON, nullable=False, server_default="[]"))


def downgrade() -> None:
    for name in ("notes", "strategy_reason", "strategy"):
        op.drop_column("rounds", name)
