"""Routes of the status and decision API: `path("approvals/", include("jit_approval.urls"))`.

| name | method | who |
|---|---|---|
| `request-list` | GET | own requests; `?role=decider`: those one may decide now; `?status=` |
| `request-detail` | GET | the requester, who may decide it, who decided it; with `Prefer: wait` a long poll |
| `request-result` | GET | the account that made the call, once the server has run it |
| `request-receipt` | GET | as `request-detail`, once the call has run and all of it is sealed |
| `callback-list` | GET, POST | own endpoints to be called back at; registers one |
| `callback-detail` | GET, DELETE | one of them |
| `request-cancel` | POST | the requester, while it is pending |
| `request-approve`, `request-reject` | POST | its deciders, while it is pending |
| `request-revoke` | POST | its deciders and the requester, while the approval is unused |
"""

from django.urls import path

from jit_approval.api import callbacks, polling, results, views

app_name = "jit_approval"

# Ids are `str`, not `uuid`: a malformed one gets the same answer as one that is unknown.
urlpatterns = [
    path("", views.RequestListView.as_view(), name="request-list"),
    # Before the ids, of which none is called so.
    path("callbacks/", callbacks.CallbackListView.as_view(), name="callback-list"),
    path("callbacks/<str:pk>/", callbacks.CallbackDetailView.as_view(), name="callback-detail"),
    path("<str:pk>/", polling.detail_view(), name="request-detail"),
    path("<str:pk>/result/", results.ResultView.as_view(), name="request-result"),
    path("<str:pk>/receipt/", views.ReceiptView.as_view(), name="request-receipt"),
    path("<str:pk>/cancel/", views.CancelView.as_view(), name="request-cancel"),
    path("<str:pk>/approve/", views.ApproveView.as_view(), name="request-approve"),
    path("<str:pk>/reject/", views.RejectView.as_view(), name="request-reject"),
    path("<str:pk>/revoke/", views.RevokeView.as_view(), name="request-revoke"),
]
