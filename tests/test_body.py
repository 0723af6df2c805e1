"""The body of a call: bound to one meaning, or refused with nothing opened and nothing run."""

from __future__ import annotations

import json
from io import BytesIO

import pytest
from django.core.files.uploadedfile import SimpleUploadedFile
from django.test import AsyncRequestFactory, override_settings
from rest_framework.test import APIClient

from jit_approval import body
from jit_approval.exceptions import UnbindableCall
from jit_approval.models import ApprovalRequest
from tests import bindapp, callers
from tests.bindapp import RUNS
from tests.callers import multipart

pytestmark = [pytest.mark.django_db(transaction=True), pytest.mark.urls("tests.bindapp")]
FORM = "application/x-www-form-urlencoded"


@pytest.fixture
def caller():
    bindapp.reset()
    return callers.Caller()


def refused(response, status: int, code: str | None = "unbindable_call") -> None:
    assert response.status_code == status, response.content
    if response["Content-Type"].startswith("application/"):
        assert response.json().get("code") == code
    assert RUNS == []
    assert not ApprovalRequest.objects.exists()


class Exploding(BytesIO):
    """A stream nobody may read."""

    def read(self, *args):
        raise AssertionError("the body was read")


# --- refused ---------------------------------------------------------------------------------------------

JSON_REFUSED = {
    "malformed": (b"{", 400, None),
    "nothing but space": (b" ", 400, None),
    "two documents": (b"{}{}", 400, None),
    "not UTF-8": (b'{"a": "\xe9"}', 400, None),
    "UTF-16": ('{"a": 1}'.encode("utf-16"), 400, None),
    "overlong UTF-8": (b'"\xc0\x80"', 400, None),
    "byte order mark": (b"\xef\xbb\xbf{}", 400, None),
    "NaN": (b'{"a": NaN}', 400, None),
    "Infinity": (b"[-Infinity]", 400, None),
    "too many digits": (b"9" * 5000, 400, None),
    "duplicate keys": (b'{"a": 1, "a": 1}', 400, "unbindable_call"),
    "duplicate keys within": (b'[{"x": {"a": 1, "b": 2, "a": 3}}]', 400, "unbindable_call"),
    "duplicate keys, one escaped": (b'{"a": 1, "\\u0061": 2}', 400, "unbindable_call"),
    "duplicate empty keys": (b'{"": 1, "": 2}', 400, "unbindable_call"),
    "duplicate surrogate keys": (b'{"\\ud800": 1, "\\uD800": 2}', 400, "unbindable_call"),
    "too deep": (b"[" * 34 + b"]" * 34, 400, "unbindable_call"),
    "too deep among others": (
        b'{"a": 1, "b": ' + b"[" * 33 + b"]" * 33 + b"}",
        400,
        "unbindable_call",
    ),
    "far too deep": (b'{"a":' * 90_000 + b"1" + b"}" * 90_000, 400, "unbindable_call"),
}


@pytest.mark.parametrize("case", JSON_REFUSED)
def test_json_without_one_meaning_is_refused(caller, case):
    raw, status, code = JSON_REFUSED[case]
    refused(caller.send("/pay/", raw), status, code)


HEADERS_REFUSED = {
    "chunked": ({"HTTP_TRANSFER_ENCODING": "chunked", "CONTENT_LENGTH": ""}, 411),
    "chunked with a length": ({"HTTP_TRANSFER_ENCODING": "chunked"}, 411),
    "gzip": ({"HTTP_CONTENT_ENCODING": "gzip"}, 415),
    "identity, then gzip": ({"HTTP_CONTENT_ENCODING": "identity, gzip"}, 415),
    "no number": ({"CONTENT_LENGTH": "two"}, 400),
    "a sign": ({"CONTENT_LENGTH": "+2"}, 400),
    "two lengths": ({"CONTENT_LENGTH": "2,2"}, 400),
    "other digits": ({"CONTENT_LENGTH": "\uff12"}, 400),
    "more digits than Python converts": ({"CONTENT_LENGTH": "9" * 5000}, 400),
    "a length that is too long": ({"CONTENT_LENGTH": "3", "wsgi.input": BytesIO(b"{}")}, 400),
    "a header that poses as the length": ({"HTTP_CONTENT_LENGTH": "2"}, 400),
    "a header that poses as the type": ({"HTTP_CONTENT_TYPE": "text/plain"}, 400),
}


@pytest.mark.parametrize("case", HEADERS_REFUSED)
def test_a_body_of_unclear_extent_or_encoding_is_refused(caller, case):
    extra, status = HEADERS_REFUSED[case]
    refused(caller.send("/pay/", b"{}", **extra), status)


@pytest.mark.parametrize("charset", ["latin-1", "utf-16", "utf-8-sig", "UTF_7", "bz2_codec", "?"])
@pytest.mark.parametrize("kind", ["application/json", FORM, "multipart/form-data; boundary=x"])
def test_any_charset_but_utf_8_is_refused(caller, kind, charset):
    refused(caller.send("/pay/", b"{}", type=f"{kind}; charset={charset}"), 415)


@pytest.mark.parametrize("charset", ["utf-8", "UTF-8", '"utf-8"', "utf8"])
def test_utf_8_may_be_named(caller, charset):
    caller.approve(caller.send("/pay/", b"{}", type=f"application/json; charset={charset}"))


def test_a_media_type_the_view_does_not_read_is_drfs_own_415(caller):
    refused(caller.send("/pay/", b"<a/>", type="application/xml"), 415, None)
    refused(caller.send("/pay/", b"{}", type=""), 415, None)


@pytest.mark.parametrize("kind", ["application/json", FORM, "multipart/form-data; boundary=x"])
def test_an_over_long_body_is_refused_unread(caller, kind):
    extra = {"CONTENT_LENGTH": str(1024 * 1024 + 1), "wsgi.input": Exploding()}
    refused(caller.send("/pay/", b"{}", type=kind, **extra), 413, "payload_too_large")


@override_settings(DATA_UPLOAD_MAX_MEMORY_SIZE=10)
def test_what_django_will_not_hold_in_memory_is_413(caller):
    refused(caller.send("/pay/", b'{"a": "123456789"}'), 413, "payload_too_large")


@override_settings(DATA_UPLOAD_MAX_NUMBER_FIELDS=3)
@pytest.mark.parametrize("raw", [b"a=1&b=2&c=3&d=4"])
def test_more_fields_than_django_takes_are_refused(caller, raw):
    refused(caller.send("/pay/", raw, type=FORM), 400)


def test_json_is_checked_whoever_parses_it(caller):
    refused(caller.send("/unrelated/", b'{"a": 1, "a": 2}'), 400)
    refused(caller.send("/unrelated/", b"[" * 40 + b"]" * 40), 400)


def test_a_parser_that_takes_more_than_json_does_not_get_it_past_the_checks(caller):
    refused(caller.send("/lenient/", b'\xef\xbb\xbf{"a": 1, "a": 2}'), 400)


# --- bodies that somebody has read before ----------------------------------------------------------------


def reads_post(get_response):
    def middleware(request):
        _ = request.POST
        return get_response(request)

    return middleware


def reads_body(get_response):
    def middleware(request):
        _ = request.body
        return get_response(request)

    return middleware


def reads_stream(get_response):
    def middleware(request):
        request.read(1)
        return get_response(request)

    return middleware


ONE_FILE = ('name="file"; filename="a.txt"\r\nContent-Type: text/plain', b"one")


@pytest.mark.parametrize("reader", ["reads_post", "reads_body"])
def test_a_form_that_a_middleware_read_is_bound_all_the_same(caller, reader):
    raw, kind = multipart(('name="a"', b"1"), ONE_FILE)
    other, _ = multipart(('name="a"', b"1"), (ONE_FILE[0], b"two"))
    with override_settings(MIDDLEWARE=[f"tests.test_body.{reader}"]):
        first = caller.send("/pay/", raw, type=kind)
        caller.approve(first)
        assert caller.send("/pay/", other, type=kind).json()["code"] == "approval_pending"
        assert RUNS == []
        assert caller.send("/pay/", raw, type=kind).status_code == 201
    assert RUNS == [{"a": ["1"], "file": [b"one"]}]


def test_a_form_that_a_middleware_took_from_the_view_is_refused(caller):
    raw, kind = multipart(('name="a"', b"1"))
    with override_settings(MIDDLEWARE=["tests.test_body.reads_post"]):
        refused(caller.send("/upload/x/", raw, type=kind), 404, None)
        refused(caller.send("/upload/", raw, type=kind), 400)


def test_a_body_that_was_begun_is_refused(caller):
    with override_settings(MIDDLEWARE=["tests.test_body.reads_stream"]):
        refused(caller.send("/pay/", b"{}"), 400)


@override_settings(
    MIDDLEWARE=[
        "django.contrib.sessions.middleware.SessionMiddleware",
        "django.middleware.csrf.CsrfViewMiddleware",
        "django.contrib.auth.middleware.AuthenticationMiddleware",
    ]
)
def test_a_form_whose_csrf_token_was_read_first_is_bound(caller):
    client = APIClient(enforce_csrf_checks=True, raise_request_exception=False)
    client.force_login(caller.user)
    client.cookies["csrftoken"] = "a" * 32

    def send(note: str):
        form = {"csrfmiddlewaretoken": "a" * 32, "note": note}
        return client.post("/session/", form, format="multipart")

    first = send("n")
    row = caller.approve(first)
    assert "a" * 32 not in row.payload
    assert send("other").json()["code"] == "approval_pending"
    assert RUNS == []
    assert send("n").status_code == 201
    assert RUNS == [{"csrfmiddlewaretoken": ["a" * 32], "note": ["n"]}]


class Undeclared:
    """A DRF request around an ASGI one whose body came without a length."""

    def __init__(self, http):
        from rest_framework.parsers import JSONParser, MultiPartParser
        from rest_framework.request import Request

        self.request = Request(http, parsers=[JSONParser(), MultiPartParser()])


@pytest.mark.parametrize("how", ["unread", "body", "post"])
def test_a_body_without_a_length_is_refused_even_if_somebody_read_it(how):
    raw, kind = multipart(('name="a"', b"1"))
    http = AsyncRequestFactory().generic("POST", "/pay/", raw, content_type=kind)
    del http.META["CONTENT_LENGTH"]
    _ = {"unread": lambda: None, "body": lambda: http.body, "post": lambda: http.POST}[how]()
    with pytest.raises(UnbindableCall) as refusal:
        body.read(Undeclared(http).request)
    assert refusal.value.status == 411


# --- what is held runs as it was sent --------------------------------------------------------------------

AWKWARD = {
    "NUL": b'{"a": "\\u0000", "\\u0000": 1}',
    "lone surrogates": b'{"a": "\\ud800", "\\udfff": "x"}',
    "hidden text": '{"a": "\u202e\u200b\u2066\U000e0041\ufeff"}'.encode(),
    "more digits than a column has": b'{"n": %s}' % (b"9" * 4000),
    "more than a float holds": b'{"n": 1e999, "m": -1e999, "z": -0.0}',
    "a number": b"0",
    "false": b"false",
    "null": b"null",
    "a string": b'""',
    "an empty list": b"[]",
    "an empty object": b"{}",
    "as deep as may be": b"[" * 32 + b"]" * 32,
    "markup": b'{"a": "<script>alert(1)</script>"}',
    "four-byte letters": '{"\U0001f600": "\U0001f600"}'.encode(),
}


@pytest.mark.parametrize("case", AWKWARD)
def test_awkward_json_is_stored_shown_and_run_as_it_was_sent(caller, case):
    raw = AWKWARD[case]
    row = caller.approve(caller.send("/pay/", raw))
    row.refresh_from_db()
    assert row.payload
    assert row.payload.replace("\n", "").isprintable()
    assert not set(row.payload) & set("\x00\u202e\u200b\u2066\U000e0041\ufeff\ud800\udfff")
    assert caller.send("/pay/", raw).status_code == 201
    assert json.dumps(RUNS) == json.dumps([json.loads(raw)])


def test_an_empty_body_of_any_type_is_held(caller):
    for kind in ("application/json", FORM, "multipart/form-data; boundary=x", "text/plain"):
        row = caller.approve(caller.send("/pay/", b"", type=kind))
        assert row.payload == ""
        assert caller.send("/pay/", b"", type=kind).status_code == 201
    assert len(RUNS) == 4


def test_a_body_on_delete_is_bound(caller):
    one, other = (b'{"why": "a"}', b'{"why": "b"}')
    caller.approve(caller.send("/pay/", one, method="DELETE"))
    assert caller.send("/pay/", other, method="DELETE").json()["code"] == "approval_pending"
    assert caller.send("/pay/", one, method="DELETE").status_code == 201
    assert RUNS == [{"why": "a"}]


def test_every_value_of_a_repeated_form_field_is_bound_and_shown(caller):
    row = caller.approve(caller.send("/pay/", b"to=x&to=y&n=1", type=FORM))
    assert json.loads(row.payload) == {"to": ["x", "y"], "n": "1"}
    for other in (b"to=y&to=x&n=1", b"to=x&n=1&to=y", b"to=y&n=1"):
        assert caller.send("/pay/", other, type=FORM).json()["code"] == "approval_pending"
    assert RUNS == []
    assert caller.send("/pay/", b"to=x&to=y&n=1", type=FORM).status_code == 201


# --- multipart -------------------------------------------------------------------------------------------

TEXT = 'name="file"; filename="a.txt"\r\nContent-Type: text/plain'
PARTS = (('name="a"', b"1"), ('name="a"', b"2"), (TEXT, b"one"))
OTHER_PARTS = {
    "a value": (('name="a"', b"1"), ('name="a"', b"3"), (TEXT, b"one")),
    "the order of values": (('name="a"', b"2"), ('name="a"', b"1"), (TEXT, b"one")),
    "a name": (('name="b"', b"1"), ('name="a"', b"2"), (TEXT, b"one")),
    "a missing part": (('name="a"', b"1"), (TEXT, b"one")),
    "a further part": (*PARTS, ('name="x"', b"")),
    "bytes of the file": (*PARTS[:2], (TEXT, b"two")),
    "name of the file": (*PARTS[:2], (TEXT.replace("a.txt", "b.txt"), b"one")),
    "type of the file": (*PARTS[:2], (TEXT.replace("plain", "html"), b"one")),
    "parameter of the file's type": (*PARTS[:2], (TEXT + "; charset=utf-8", b"one")),
    "field of the file": (*PARTS[:2], (TEXT.replace('"file"', '"f"'), b"one")),
    "file for a field": (*PARTS[:2], ('name="file"', b"one")),
    "field for a file": (PARTS[0], ('name="a"; filename="x"', b"2"), PARTS[2]),
    "the file twice": (*PARTS, PARTS[2]),
}


@pytest.mark.parametrize("other", OTHER_PARTS)
def test_a_form_is_bound_in_all_its_parts_but_not_its_boundary(caller, other):
    def send(parts, boundary):
        raw, kind = multipart(*parts, boundary=boundary)
        return caller.send("/pay/", raw, type=kind)

    first = send(PARTS, "one")
    caller.approve(first)
    assert send(OTHER_PARTS[other], "one").json()["code"] == "approval_pending"
    assert RUNS == []
    assert send(PARTS, "other").status_code == 201
    assert RUNS == [{"a": ["1", "2"], "file": [b"one"]}]


def test_the_parts_that_are_shown_are_those_that_are_bound(caller):
    raw, kind = multipart(*PARTS)
    shown = json.loads(caller.row(caller.send("/pay/", raw, type=kind)).payload)
    assert shown["a"] == ["1", "2"]
    assert shown["file"]["filename"] == "a.txt"
    assert shown["file"]["size"] == 3


def test_a_large_file_is_digested_from_disk_and_given_to_the_view_whole(caller):
    content = b"0123456789" * 20_000

    def send(content):
        upload = SimpleUploadedFile("a.bin", content, content_type="application/octet-stream")
        return caller.form("/pay/", {"file": upload})

    with override_settings(FILE_UPLOAD_MAX_MEMORY_SIZE=1000):
        caller.approve(send(content))
        assert send(content[:-1] + b"x").json()["code"] == "approval_pending"
        assert send(content).status_code == 201
    assert RUNS == [{"file": [content]}]


def test_a_part_in_another_charset_is_refused(caller):
    raw, kind = multipart((TEXT + "; charset=latin-1", b"\xe9"))
    refused(caller.send("/pay/", raw, type=kind), 415)


def test_a_form_that_is_not_utf_8_is_refused(caller):
    # Django would put one character for any such byte: two bodies would look alike.
    raw, kind = multipart(('name="a"', b"\xe9"))
    refused(caller.send("/pay/", raw, type=kind), 400)


def test_a_part_that_django_drops_reaches_neither_decider_nor_view(caller):
    raw, kind = multipart(('name="a"', b"1"), ('name="NAME"', b"hidden"))
    raw = raw.replace(b"NAME", b"\xe9")
    row = caller.approve(caller.send("/pay/", raw, type=kind))
    assert json.loads(row.payload) == {"a": "1"}
    assert caller.send("/pay/", raw, type=kind).status_code == 201
    assert RUNS == [{"a": ["1"]}]


def test_a_malformed_form_is_refused(caller):
    refused(caller.send("/pay/", b"x", type="multipart/form-data"), 400, None)
    raw, kind = multipart((TEXT + "\r\nContent-Transfer-Encoding: base64", b"a"))
    refused(caller.send("/pay/", raw, type=kind), 400, None)


def test_a_file_inside_parsed_data_is_bound_by_its_contents(caller):
    def send(content):
        return caller.form("/nesting/", {"file": SimpleUploadedFile("a.txt", content)})

    row = caller.approve(send(b"one"))
    assert json.loads(row.payload)["document"]["scan"]["size"] == 3
    assert send(b"two").json()["code"] == "approval_pending"
    assert RUNS == []
    assert send(b"one").status_code == 204
    assert RUNS == [b"one"]


# --- a file as the body ----------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "change",
    [{"raw": b"two"}, {"name": "b.txt"}, {"type": "text/html"}, {"type": "text/plain; a=1"}],
)
def test_a_file_upload_is_bound_by_name_type_and_contents(caller, change):
    def send(raw=b"one", name="a.txt", type="text/plain"):
        disposition = f'attachment; filename="{name}"'
        return caller.send("/upload/", raw, type=type, HTTP_CONTENT_DISPOSITION=disposition)

    row = caller.approve(send())
    assert json.loads(row.payload)["file"]["filename"] == "a.txt"
    assert send(**change).json()["code"] == "approval_pending"
    assert RUNS == []
    assert send().status_code == 201
    assert RUNS == [{"file": b"one"}]


def test_a_file_upload_without_a_name_is_drfs_own_400(caller):
    refused(caller.send("/upload/", b"one", type="text/plain"), 400, None)
