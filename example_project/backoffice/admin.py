"""The back office in Django's admin, to look at: a delete button would go around the gate."""

from typing import Any

from django.contrib import admin
from django.http import HttpRequest

from .models import Account, Cluster, Customer, Dataset, Transfer


class ReadOnlyAdmin(admin.ModelAdmin):
    """Shows, changes nothing."""

    def has_add_permission(self, request: HttpRequest) -> bool:
        """Nobody adds here."""
        return False

    def has_change_permission(self, request: HttpRequest, obj: Any = None) -> bool:
        """Nobody changes here."""
        return False

    def has_delete_permission(self, request: HttpRequest, obj: Any = None) -> bool:
        """Nobody deletes here."""
        return False


admin.site.register([Account, Cluster, Customer, Dataset, Transfer], ReadOnlyAdmin)
