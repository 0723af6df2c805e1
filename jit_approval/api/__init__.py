"""Status and decision API: read held calls, withdraw own ones, decide others'. See `urls.py` for its routes."""
