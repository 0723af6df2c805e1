"""Processes that die, hang or are doubled, on PostgreSQL: what people are told, and what runs, stays the same."""
