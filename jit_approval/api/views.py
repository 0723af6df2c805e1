"""The views: parse, call one service, shape the answer.

They set everything of their own but authentication, which is the project's: a gate, a throttle, a renderer
or an exception handler that is the project's default does not reach the place where approvals are given.
"""

from __future__ import annotations

import logging
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from http import HTTPStatus
from io import BytesIO
from typing import Any, ClassVar

from django.contrib.auth import get_user_model
from django.db import Error, connections, transaction
from django.http import HttpRequest, HttpResponse
from django.utils.http import parse_etags
from rest_framework.negotiation import DefaultContentNegotiation
from rest_framework.parsers import JSONParser
from rest_framework.permissions import IsAuthenticated
from rest_framework.renderers import BaseRenderer, BrowsableAPIRenderer, JSONRenderer
from rest_framework.request import Request
from rest_framework.response import Response
from rest_framework.settings import api_settings
from rest_framework.views import APIView

from jit_approval import body, conf, policies, problems, refusals, services, waiting
from jit_approval.api import rows, shapes
from jit_approval.api.downloads import receipt_file
from jit_approval.api.pages import NewestFirst
from jit_approval.audit import issuing
from jit_approval.capture import origin_of
from jit_approval.exceptions import ApprovalError, CommentTooLong
from jit_approval.models import ApprovalRequest
from jit_approval.states import Status, Verdict

logger = logging.getLogger(__name__)

_MAX_BODY = 64 * 1024


class IsAccount(IsAuthenticated):
    """An active row of AUTH_USER_MODEL: a principal without one stands behind nothing and decides nothing."""

    def has_permission(self, request: Request, view: APIView) -> bool:
        """Refuse the anonymous, and principals that only look like users."""
        user = request.user
        known = isinstance(user, get_user_model()) and user.pk is not None and user.is_active
        return known and super().has_permission(request, view)


class CommentParser(JSONParser):
    """JSON in UTF-8 that all readers read alike, of a size and depth that a comment may have."""

    def parse(self, stream: Any, media_type: Any = None, parser_context: Any = None) -> Any:
        """Parse, reading no more than `_MAX_BODY` bytes."""
        content = stream.read(_MAX_BODY + 1)
        if len(content) > _MAX_BODY:
            raise refusals.Problem(
                "payload_too_large",
                f"At most {_MAX_BODY} bytes.",
                status=HTTPStatus.REQUEST_ENTITY_TOO_LARGE,
            )
        body.ensure_utf_8((parser_context or {}).get("encoding"))
        with suppress(ValueError):  # no JSON: what follows says so
            body.of_json(content.decode())
        return super().parse(BytesIO(content), media_type, parser_context)


class ApprovalView(APIView):
    """What all views of the API share."""

    permission_classes = (IsAccount,)
    throttle_classes = ()
    parser_classes = (CommentParser,)
    versioning_class = None
    content_negotiation_class = DefaultContentNegotiation

    @classmethod
    def as_view(cls, **initkwargs: Any) -> Any:
        """Return the callback, kept out of ATOMIC_REQUESTS: a decision commits by itself, or fails loudly."""
        view = super().as_view(**initkwargs)
        for alias in connections:
            view = transaction.non_atomic_requests(using=alias)(view)
        return view

    def setup(self, request: HttpRequest, *args: Any, **kwargs: Any) -> None:
        """Answer with problem details, whatever the project's EXCEPTION_HANDLER."""
        super().setup(request, *args, **kwargs)
        refusals.answer_in(self)

    def get_renderers(self) -> list[BaseRenderer]:
        """Return JSON, and the browsable API where the project has it."""
        classes: Any = api_settings.DEFAULT_RENDERER_CLASSES
        browsable = [kind() for kind in classes if issubclass(kind, BrowsableAPIRenderer)]
        return [JSONRenderer(), *browsable]

    def finalize_response(
        self, request: Request, response: Response, *args: Any, **kwargs: Any
    ) -> Response:
        """Let nobody keep what may have changed a second later."""
        response = super().finalize_response(request, response, *args, **kwargs)
        response.headers.setdefault("Cache-Control", "no-store")
        return response


class RequestListView(ApprovalView):
    """Own requests, newest first. `?role=decider`: those of others one may decide now; `?status=` filters.

    With `role=decider` and another status than `pending`: those one has authority over in that status.
    Entries leave out `payload` and `context`.
    """

    def get(self, request: Request, **kwargs: Any) -> Response:
        """Return one page. What one may not decide after all (one is behind the call) is left out of it."""
        with answered():
            deciding, status = _role_is_decider(request), _status(request)
            if deciding:
                found = rows.under(request.user, status or Status.PENDING)
            else:
                found = rows.own(request.user)
                found = found if status is None else rows.in_status(found, status)
            pages = NewestFirst()
            page = pages.paginate_queryset(rows.for_list(found), request, view=self) or []
            if deciding:
                person = policies.person_of(request.user)
                page = [row for row in page if person not in row.persons]
            return pages.get_paginated_response([shapes.summary(row) for row in page])


class RequestDetailView(ApprovalView):
    """One request: to its requester, to who may decide it, to who decided it. To others it does not exist."""

    def get(self, request: Request, pk: str, **kwargs: Any) -> Response:
        """Return it as it stands now, or 304; while it is pending, with when to look again."""
        with answered():
            row = rows.visible_to(request.user, pk)
        etag = shapes.etag(row)
        response = Response(status=304) if _knows(request, etag) else _shown(row)
        response.headers["ETag"] = etag
        if shapes.may_change(row):
            waiting.mark(response, waiting.held(row, reader=request.user.pk, now=row.now))
        return response


class ReceiptView(ApprovalView):
    """The receipt of a call that ran, as a file: to whoever sees the request. 409 while there is none."""

    def get(self, request: Request, pk: str, **kwargs: Any) -> HttpResponse:
        """Return it whole, or say why there is none."""
        with answered():
            row = rows.visible_to(request.user, pk)
            try:
                return receipt_file(row, reader=request.user)
            except issuing.NoReceiptNow as error:
                raise problems.no_receipt(error) from None


class MoveView(ApprovalView):
    """A POST that calls one service. Body: `{"comment": "..."}`, or nothing."""

    service: ClassVar[Callable[..., ApprovalRequest]]

    def post(self, request: Request, pk: str, **kwargs: Any) -> Response:
        """Do it, and return the request as it stands after."""
        with answered():
            row = rows.visible_to(request.user, pk)
            comment = _comment(request)
            try:
                type(self).service(row, by=request.user, comment=comment, origin=origin_of(request))
                row = rows.read(row.pk)
            except Error:
                row = self._true_state(request, row)
        return _shown(row)

    def _true_state(self, request: Request, row: ApprovalRequest) -> ApprovalRequest:
        """Find out on a new connection what an error has left: a COMMIT may raise and yet have happened."""
        logger.exception("The database failed while approval request %s was decided.", row.pk)
        connection = connections[policies.database()]
        if not connection.in_atomic_block:
            connection.close()
        row = rows.read(row.pk)
        if not self.happened(request.user, row):
            raise problems.unavailable("The database failed. Nothing was changed; try again.")
        return row

    def happened(self, user: Any, row: ApprovalRequest) -> bool:
        """Tell whether the row is as this move would have left it."""
        raise NotImplementedError


class ApproveView(MoveView):
    """Vote for the call."""

    service = staticmethod(services.approve)

    def happened(self, user: Any, row: ApprovalRequest) -> bool:
        """Tell whether the user's person has approved."""
        return rows.decision_of(user, row) == Verdict.APPROVE


class RejectView(MoveView):
    """Refuse the call for good."""

    service = staticmethod(services.reject)

    def happened(self, user: Any, row: ApprovalRequest) -> bool:
        """Tell whether the user's person has rejected."""
        return rows.decision_of(user, row) == Verdict.REJECT


class CancelView(MoveView):
    """Withdraw an own pending request."""

    service = staticmethod(services.cancel)

    def happened(self, user: Any, row: ApprovalRequest) -> bool:
        """Tell whether it is cancelled."""
        return row.status == Status.CANCELLED


class RevokeView(MoveView):
    """Take back an approval that has not been used."""

    service = staticmethod(services.revoke)

    def happened(self, user: Any, row: ApprovalRequest) -> bool:
        """Tell whether it is revoked."""
        return row.status == Status.REVOKED


# --- the pieces ------------------------------------------------------------------------------------------


@contextmanager
def answered() -> Iterator[None]:
    """Translate a broken rule, or a failed database, at the edge."""
    try:
        yield
    except ApprovalError as error:
        raise problems.from_error(error) from error
    except Error as error:
        logger.exception("The approval API could not reach its database.")
        detail = "The database failed. Read the request again to see whether anything was changed."
        raise problems.unavailable(detail) from error


def _shown(row: ApprovalRequest) -> Response:
    response = Response(shapes.full(row))
    if shapes.status_now(row) is Status.PENDING:
        response.headers["Retry-After"] = str(conf.get().POLL_INTERVAL)
    return response


def _knows(request: Request, etag: str) -> bool:
    """Tell whether the client has said that it has this already. RFC 9110 §13.1.2: a weak comparison."""
    named = parse_etags(request.META.get("HTTP_IF_NONE_MATCH", ""))
    return etag.removeprefix("W/") in {name.removeprefix("W/") for name in named}


def _comment(request: Request) -> str:
    data = request.data
    comment = data.get("comment", "") if isinstance(data, dict) else None
    if not isinstance(comment, str):
        raise problems.invalid('Send {"comment": "…"} with a string, or no body.')
    limit = conf.get().MAX_REASON_LENGTH
    if len(comment) > limit:
        raise CommentTooLong(f"A comment has at most {limit} characters.")
    return comment


def _role_is_decider(request: Request) -> bool:
    role = request.query_params.get("role", "requester")
    if role not in ("requester", "decider"):
        raise problems.invalid("role is requester or decider.")
    return role == "decider"


def _status(request: Request) -> Status | None:
    text = request.query_params.get("status")
    if text is None:
        return None
    if text not in Status.values:
        raise problems.invalid(f"status is one of {', '.join(Status.values)}.")
    return Status(text)
