"""A person at Django's admin: a session, forms, CSRF tokens, as a browser would have them."""

from html.parser import HTMLParser

import httpx

from .children import DemoFailed


class Page(HTMLParser):
    """What a person would use of a page: its forms' hidden fields, and its text."""

    def __init__(self, response: httpx.Response) -> None:
        super().__init__()
        self.url = str(response.url)
        self.forms: list[dict[str, str]] = []
        self.controls: list[set[str]] = []
        self.text = ""
        self.feed(response.text)

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        """Collect forms and their fields."""
        values = dict(attrs)
        if tag == "form":
            self.forms.append({})
            self.controls.append(set())
        elif tag in {"input", "textarea", "select", "button"} and self.forms:
            name = values.get("name") or ""
            self.controls[-1].add(name)
            if values.get("type") == "hidden":
                self.forms[-1][name] = values.get("value") or ""

    def handle_data(self, data: str) -> None:
        """Collect the words."""
        self.text += f" {data.strip()}" if data.strip() else ""

    def form_with(self, control: str) -> dict[str, str]:
        """The hidden fields of the form that has a certain control."""
        for hidden, controls in zip(self.forms, self.controls, strict=True):
            if control in controls:
                return hidden
        raise DemoFailed(f"{self.url} has no form with {control!r}")


def is_up(base_url: str) -> bool | None:
    """Whether the web server answers; None as long as it does not."""
    try:
        return httpx.get(f"{base_url}/admin/login/", trust_env=False).is_success or None
    except httpx.TransportError:
        return None


class AdminBrowser:
    """One person, logged in."""

    def __init__(self, base_url: str, name: str, password: str) -> None:
        self.client = httpx.Client(base_url=base_url, follow_redirects=True, trust_env=False)
        page = self.open("/admin/login/?next=/admin/")
        page = self._send(page, {"username": name, "password": password}, "username")
        if "/login/" in page.url:
            raise DemoFailed(f"{name} could not log in to the admin")

    def open(self, url: str) -> Page:
        """Open a page."""
        response = self.client.get(url)
        if response.status_code != 200:
            raise DemoFailed(f"GET {url} answered {response.status_code}")
        return Page(response)

    def decide(self, url: str, verdict: str, comment: str) -> Page:
        """Open a decision page, choose, submit its form, and return the page that follows."""
        return self.submit(self.open(url), verdict, comment)

    def submit(self, page: Page, verdict: str, comment: str = "") -> Page:
        """Choose on a decision page that is open, submit its form, and return the page that follows."""
        return self._send(page, {"verdict": verdict, "comment": comment}, "verdict")

    def _send(self, page: Page, fields: dict[str, str], control: str) -> Page:
        data = {**page.form_with(control), **fields}
        response = self.client.post(page.url, data=data, headers={"Referer": page.url})
        if response.status_code != 200:
            raise DemoFailed(f"POST {page.url} answered {response.status_code}")
        return Page(response)
