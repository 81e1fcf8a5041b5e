"""Finds the name that people know for a job's owner: an audience such as "user:7" is "ada"."""

from collections.abc import Iterable
from typing import Any

from django.contrib.auth import get_user_model
from django.utils.translation import gettext as _

from progrock.gate import A_USER, A_VISITOR

#: How many users a search by name finds at most.
_MOST = 200


def names_of(audiences: Iterable[str]) -> dict[str, str]:
    """The name of each of these audiences. A user's is the login name; others keep their own."""
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
    """The audiences of the users whose login name contains this text, in any case."""
    users: Any = get_user_model()
    holds = {f"{users.USERNAME_FIELD}__icontains": text}
    keys = users._base_manager.filter(**holds).values_list("pk", flat=True)[:_MOST]
    return [f"{A_USER}{pk}" for pk in keys]


def _plain(audience: str) -> str:
    if audience.startswith(A_VISITOR):
        return _("visitor %(id)s") % {"id": audience.removeprefix(A_VISITOR)[:4]}
    return audience


def _is_key(users: Any, text: str) -> bool:
    """Whether a text can be a user's primary key. An audience may have any name after "user:"."""
    try:
        users._meta.pk.clean(text, None)  # a number may be too large for the column
    except Exception:  # a field of the project's own may raise anything, not only ValidationError
        return False
    return True
