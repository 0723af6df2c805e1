"""The form of a channel: what its kind asks for. A stored secret is never shown, and never sent to a browser."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import TYPE_CHECKING, Any

from django import forms
from django.core.exceptions import ValidationError
from django.utils.text import capfirst
from django.utils.translation import gettext as _t
from django.utils.translation import gettext_lazy as _

from jit_approval import secrets
from jit_approval.models import Channel
from jit_approval.notifications import channels
from jit_approval.notifications.transport import Field, Target, TransportError

if TYPE_CHECKING:
    _Form = forms.ModelForm[Channel]
else:
    _Form = forms.ModelForm

_KEPT = _("Stored, and not shown. Leave this empty to keep it.")


class AddChannelForm(_Form):
    """A new channel: its kind decides what is asked next."""

    kind = forms.ChoiceField(label=_("Kind"))

    class Meta:
        model = Channel
        fields = ("name", "slug", "kind")

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        self.fields["kind"].choices = list(_choices())  # type: ignore[attr-defined]


class ChannelForm(_Form):
    """A channel with what its kind asks for. See `form_for`."""

    asked: Sequence[Field] = ()

    class Meta:
        model = Channel
        fields = ("name", "enabled")

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        # Secrets made here, to be shown once.
        self.made: dict[str, str] = {}
        for field in self.asked:
            if field.name in self.instance.configuration and not field.secret:
                self.initial[_name(field)] = self.instance.configuration[field.name]

    def clean(self) -> dict[str, Any]:
        """Check every value, and that an enabled channel has all it needs."""
        data = super().clean() or self.cleaned_data
        self.configuration = {
            field.name: data.get(_name(field), "") for field in self.asked if not field.secret
        }
        self.secrets = stored_secrets(self.instance)
        for field in self.asked:
            if field.secret:
                self._clean_secret(field, data)
        for field in self.asked:
            self._check(field, data)
        if not self.errors:
            self._check_all()
        return data

    def apply(self) -> None:
        """Put what was entered into the channel, secrets encrypted; the caller saves it."""
        self.instance.configuration = self.configuration
        self.instance.keep_secrets(self.secrets)
        if self.instance.enabled:
            self.instance.disabled_because = ""

    def _clean_secret(self, field: Field, data: dict[str, Any]) -> None:
        entered = data.get(_name(field), "")
        if data.get(_name(field, "forget")):
            self.secrets.pop(field.name, None)
        if not entered and data.get(_name(field, "make")) and field.generate is not None:
            entered = self.made[str(field.label)] = field.generate()
        if not entered:
            return
        before = self.secrets.get(field.name, "")
        if field.previous and before and before != entered:
            # Receivers change over one after the other.
            self.secrets[field.previous] = before
        self.secrets[field.name] = entered

    def _check(self, field: Field, data: dict[str, Any]) -> None:
        if _name(field) in self.errors:
            return
        found = (self.secrets if field.secret else self.configuration).get(field.name, "")
        if field.required and not found and data.get("enabled"):
            self.add_error(_name(field), _t("An enabled channel needs this."))
        if found and field.check is not None:
            try:
                field.check(found)
            except ValidationError as error:
                self.add_error(_name(field), error)

    def _check_all(self) -> None:
        if any(self.secrets.values()) and not secrets.is_ready():
            try:
                secrets.seal("", bound_to="")
            except secrets.SecretError as error:
                self.add_error(None, str(error))
        check = getattr(channels.find(self.instance.kind), "check", None)
        if check is not None:
            try:
                check(Target(configuration=self.configuration, secrets=self.secrets))
            except ValidationError as error:
                self.add_error(None, error)


def form_for(channel: Channel) -> type[ChannelForm]:
    """Return a form class with a field for each thing the channel's kind asks for."""
    asked = fields_of(channel)
    made: dict[str, Any] = {"asked": asked}
    kept = stored_secrets(channel)
    for field in asked:
        made |= (
            _secret(field, field.name in kept) if field.secret else {_name(field): _plain(field)}
        )
    return type("ChannelForm", (ChannelForm,), made)


def names_for(channel: Channel) -> list[str]:
    """Return the names of those fields, in the order they are asked."""
    made = form_for(channel)
    return [name for name in made.base_fields if name not in ChannelForm.base_fields]


def fields_of(channel: Channel) -> Sequence[Field]:
    """Return what the channel's kind asks for; nothing, where there is no such kind."""
    try:
        return channels.find(channel.kind).FIELDS
    except TransportError:
        return ()


def stored_secrets(channel: Channel) -> dict[str, str]:
    """Return the secrets, or none where they cannot be decrypted: the page says so."""
    try:
        return channel.open_secrets()
    except secrets.SecretError:
        return {}


def _choices() -> Iterator[tuple[str, Any]]:
    for kind in sorted(channels.kinds()):
        try:
            yield kind, channels.find(kind).LABEL
        except TransportError:
            continue


def _name(field: Field, suffix: str = "") -> str:
    return "_".join(filter(None, ["set", field.name, suffix]))


def _plain(field: Field) -> forms.Field:
    widget: forms.Widget = forms.TextInput(attrs={"class": "vLargeTextField"})
    if field.lines > 1:
        widget = forms.Textarea(attrs={"rows": field.lines, "class": "vLargeTextField"})
    return forms.CharField(
        label=capfirst(field.label),
        help_text=field.help_text,
        required=False,
        widget=widget,
        max_length=5000,
    )


def _secret(field: Field, is_stored: bool) -> dict[str, forms.Field]:
    attrs = {"autocomplete": "new-password", "class": "vLargeTextField"}
    widget: forms.Widget = forms.PasswordInput(attrs=attrs)
    if field.lines > 1:
        widget = forms.Textarea(attrs={**attrs, "rows": field.lines})
    text = f"{field.help_text} {_KEPT}" if is_stored else field.help_text
    made: dict[str, forms.Field] = {
        _name(field): forms.CharField(
            label=capfirst(field.label),
            help_text=text,
            required=False,
            widget=widget,
            max_length=5000,
        )
    }
    if field.generate is not None:
        made[_name(field, "make")] = forms.BooleanField(
            label=_t("Make a new %(secret)s") % {"secret": field.label},
            help_text=_("It is shown once."),
            required=False,
            initial=not is_stored,
        )
    if is_stored and not field.required:
        label = _t("Forget the %(secret)s") % {"secret": field.label}
        made[_name(field, "forget")] = forms.BooleanField(label=label, required=False)
    return made
