"""What somebody with all rights on the database can do to a trail, at random. Triggers are lifted where tests run.

Each act changes the rows of a history and returns what was done; `CannotHere` where there is nothing to do it to.
"""

from tests.tampering import events, statements
from tests.tampering.rows import Act

STRUCTURAL: tuple[Act, ...] = (
    events.drop_events,
    events.drop_request,
    events.drop_request_alone,
    events.drop_unsealed,
    events.move_an_end,
    events.swap_contents,
    events.swap_sequences,
    events.swap_seals,
    events.rewrite,
    events.blank,
    events.change_origin,
    events.insert,
    statements.resign,
    statements.usurp,
    statements.replay,
    statements.drop_statement,
    statements.swap_statements,
    statements.truncate_some,
)
"""Found whatever one has kept elsewhere."""

ENDINGS: tuple[Act, ...] = (statements.roll_back, statements.drop_last_statements)
"""Found with a checkpoint that was kept elsewhere, and with nothing else."""
