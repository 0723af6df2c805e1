"""How the back office's things look on the wire."""

from typing import Any

from rest_framework import serializers

from .models import Account, Cluster, Customer, Dataset, Transfer


class CustomerSerializer(serializers.ModelSerializer):
    """A customer, without the data."""

    class Meta:
        model = Customer
        fields = ["id", "name", "email", "created_at"]


class DatasetSerializer(serializers.ModelSerializer):
    """A dataset, without its rows."""

    class Meta:
        model = Dataset
        fields = ["id", "customer", "name", "rows", "last_read_at"]


class AccountSerializer(serializers.ModelSerializer):
    """An account and what it holds."""

    class Meta:
        model = Account
        fields = ["number", "name", "balance"]


class TransferSerializer(serializers.ModelSerializer):
    """A transfer; accounts are named by their numbers."""

    source = serializers.SlugRelatedField(slug_field="number", queryset=Account.objects.all())
    target = serializers.SlugRelatedField(slug_field="number", queryset=Account.objects.all())
    created_by = serializers.SlugRelatedField(slug_field="username", read_only=True)

    class Meta:
        model = Transfer
        fields = ["id", "source", "target", "amount", "reference", "created_by", "created_at"]

    def validate(self, attrs: dict[str, Any]) -> dict[str, Any]:
        """Money does not move from an account to itself."""
        if attrs["source"] == attrs["target"]:
            raise serializers.ValidationError({"target": "Source and target are the same account."})
        return attrs


class ClusterSerializer(serializers.ModelSerializer):
    """A cluster and whether it is up."""

    class Meta:
        model = Cluster
        fields = ["name", "nodes", "state"]
