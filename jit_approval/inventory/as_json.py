"""The inventory as plain data for programs. docs/inventory.md says what each key means."""

from __future__ import annotations

from dataclasses import asdict
from typing import Any

from jit_approval.inventory.around import Place, WayAround
from jit_approval.inventory.lines import Line, Listed
from jit_approval.inventory.listing import Inventory

VERSION = 1


def as_json(inventory: Inventory) -> dict[str, Any]:
    """Return the inventory as dicts, lists and scalars. Keys are only ever added within a `version`."""
    return {
        "version": VERSION,
        "routes": [_route(one) for one in inventory.routes],
        "ways_around": [_way(one) for one in inventory.ways_around],
        "idle_policies": [asdict(one) for one in inventory.idle],
        "allow_list": {
            "unknown": [{"line": one.line, "entry": str(one)} for one in inventory.unknown],
            "stale": [{"line": one.line, "entry": str(one)} for one in inventory.stale],
        },
        "left_out": inventory.left_out,
        "left_out_on_held_models": inventory.left_out_around,
        "reading_routes": inventory.reading,
        "failing": len(inventory.failing),
    }


def _route(one: Listed) -> dict[str, Any]:
    return {
        "path": one.path,
        "also": list(one.also),
        "view": one.view,
        "kind": str(one.kind),
        "models": sorted(one.models),
        "methods": [_line(line) for line in one.lines],
    }


def _line(line: Line) -> dict[str, Any]:
    return {
        "method": line.method,
        "action": line.action,
        "gate": str(line.gate),
        "status": str(line.status),
        "why": str(line.why),
        "policies": [asdict(one) for one in line.naming.chain],
        "observed_by": list(line.naming.observed),
        "otherwise": line.otherwise,
        "deciders": line.deciders,
        "allowed_by_line": line.allowed,
    }


def _way(one: WayAround) -> dict[str, Any]:
    return {
        "how": one.how,
        "model": one.model,
        "free": _place(one.free),
        "held": None if one.held is None else _place(one.held),
        "allowed": one.allowed,
    }


def _place(one: Place) -> dict[str, str]:
    return asdict(one)
