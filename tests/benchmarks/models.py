"""The table of the shapes."""

from django.db import models


class Pair(models.Model):
    """Two columns: what any statement of the ORM costs at the very least."""

    value = models.IntegerField()
