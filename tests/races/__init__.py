"""Many at once, on one request: separate processes on PostgreSQL, threads everywhere."""
