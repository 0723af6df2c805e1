"""Who and what the story needs: people, policies, and a back office worth protecting."""

from datetime import timedelta
from decimal import Decimal
from typing import Any
from uuid import uuid4

from django.contrib.auth.models import Group, Permission, User
from guardian.shortcuts import assign_perm
from rest_framework.authtoken.models import Token

from example_project.backoffice.models import Account, Cluster, Customer, Dataset
from jit_approval.models import ApprovalPolicy
from jit_approval.states import Execution

# Name and whether they see the admin. Passwords are "<name>-demo": this database is for show.
PEOPLE = {"erin": False, "bob": True, "carol": True}

POLICIES: dict[str, dict[str, Any]] = {
    "transfers": {
        "name": "Transfers",
        "actions": "transfers.*",
        "decide_within": timedelta(minutes=15),
        "usable_within": timedelta(minutes=2),
        "rejection_cooldown": timedelta(seconds=5),
        "require_reason": True,
    },
    "customer-data": {
        "name": "Customer data",
        "actions": "customers.destroy\ncustomers.export",
        "decide_within": timedelta(minutes=15),
        "usable_within": timedelta(minutes=5),
    },
    "dataset-erasure": {
        "name": "Dataset erasure",
        "actions": "datasets.destroy",
        # Much too short for an office; right for watching a call expire.
        "decide_within": timedelta(seconds=5),
        "usable_within": timedelta(minutes=1),
    },
    "cluster-shutdown": {
        "name": "Cluster shutdown",
        "actions": "clusters.shutdown",
        "decide_within": timedelta(minutes=15),
        "usable_within": timedelta(minutes=5),
        "required_approvals": 2,
        # Whoever asked has long gone to see to something else: a worker runs it, and keeps the answer.
        "execution": Execution.SERVER,
    },
}


def prepare() -> dict[str, Any]:
    """Make sure everything is there and return what the story has to know of it."""
    approvers, _ = Group.objects.get_or_create(name="Approvers")
    for name, staff in PEOPLE.items():
        _person(name, staff, approvers)
    for slug, terms in POLICIES.items():
        policy, _ = ApprovalPolicy.objects.update_or_create(slug=slug, defaults=terms)
        # Who may decide is a permission on the policy itself.
        assign_perm("jit_approval.decide", approvers, policy)
    for codename in ("view_approvalrequest", "view_approvalpolicy", "view_auditevent"):
        approvers.permissions.add(
            Permission.objects.get(content_type__app_label="jit_approval", codename=codename)
        )
    token, _ = Token.objects.get_or_create(user=User.objects.get(username="erin"))
    return {"token": token.key, **_back_office()}


def _person(name: str, staff: bool, approvers: Group) -> None:
    user, _ = User.objects.get_or_create(username=name)
    user.email = f"{name}@backoffice.example"
    user.is_staff = staff
    user.set_password(f"{name}-demo")
    user.save()
    if staff:
        user.groups.add(approvers)


def _back_office() -> dict[str, Any]:
    """Accounts and clusters as they should be, and customers of this run's own to lose."""
    for number, name, balance in [
        ("NL01-OPERATING", "Operating", 5_000_000),
        ("NL02-SUPPLIER", "Acme Turbines", 0),
    ]:
        Account.objects.update_or_create(
            number=number, defaults={"name": name, "balance": Decimal(balance)}
        )
    for cluster, nodes in [("prod-eu", 12), ("test-eu", 3)]:
        Cluster.objects.update_or_create(
            name=cluster, defaults={"nodes": nodes, "state": Cluster.State.RUNNING}
        )
    clinics, toys = (
        Customer.objects.create(name=name, email=f"privacy-{uuid4().hex[:8]}@{host}.example")
        for name, host in [("Northwind Clinics", "northwind"), ("Tailspin Toys", "tailspin")]
    )
    dataset = Dataset.objects.create(
        customer=clinics, name="Patient letters 2019-2026", rows=48_211_903
    )
    Dataset.objects.create(customer=toys, name="Orders since 2021", rows=912_044)
    return {
        "source": "NL01-OPERATING",
        "target": "NL02-SUPPLIER",
        "dataset": dataset.pk,
        "customer": toys.pk,
    }
