"""Whose jobs these are, in words for people: an audience such as "user:7" is called "ada"."""

from collections.abc import Iterable
from typing import Any

from django.contrib.auth import get_user_model
from django.utils.translation import gettext as _

from progrock.gate import A_USER, A_VISITOR

#: Up to so many users are looked for whose name holds a text.
_MOST = 200


def names_of(audiences: Iterable[str]) -> dict[str, str]:
    """What each of these audiences is called: a user by the login name, another by its own name."""
    found = {each: _plain(each) for each in audiences}
    users: Any = get_user_model()
    keys = {each.removeprefix(A_USER) for each in found if each.startswith(A_USER)}
    usable = [key for key in keys if _is_key(users, key)]
    for pk, name in users._base_manager.filter(pk__in=usable).values_list(
        "pk", users.USERNAME_FIELD
    ):
        found[f"{A_USER}{pk}"] = str(name)
    return found


def audiences_like(text: str) -> list[str]:
    """The audiences of the users whose login name holds this text, whatever the case."""
    users: Any = get_user_model()
    holds = {f"{users.USERNAME_FIELD}__icontains": text}
    keys = users._base_manager.filter(**holds).values_list("pk", flat=True)[:_MOST]
    return [f"{A_USER}{pk}" for pk in keys]


def _plain(audience: str) -> str:
    if audience.startswith(A_VISITOR):
        return _("visitor %(id)s") % {"id": audience.removeprefix(A_VISITOR)[:4]}
    return audience


def _is_key(users: Any, text: str) -> bool:
    """Whether a text can be the key of a user; an audience may have any name."""
    try:
        users._meta.pk.clean(text, None)  # a number may be too large for the column
    except Exception:  # ValidationError, or whatever a key of the project's own raises
        return False
    return True
