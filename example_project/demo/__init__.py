"""`manage.py demo`: the whole story told over real HTTP, with a real server and worker."""
