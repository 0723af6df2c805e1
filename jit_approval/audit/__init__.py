"""The trail: one hash-chained event for each transition, written in the transition's own transaction."""
