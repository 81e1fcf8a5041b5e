"""The sentences of the browser's client, in the language of the page.

progrock.js, words.js and form.js hold the same sentences in English, and a test compares them. A
page hands its client only the sentences that differ from the English ones.
"""

from collections.abc import Callable

from django.utils.translation import gettext as _
from django.utils.translation import ngettext, override

Text = str | dict[str, str]

#: For each plural category of Intl.PluralRules a number that is in it, in languages that have it.
_NUMBERS = {"zero": 0, "one": 1, "two": 2, "few": 3, "many": 11, "other": 100}


def different(texts: Callable[[], dict[str, Text]]) -> dict[str, Text]:
    """Those of `texts()` whose translation into the active language is not the English text."""
    with override(None):
        source = texts()
    return {key: text for key, text in texts().items() if text != source[key]}


def client_texts() -> dict[str, Text]:
    """The texts of progrock.js by their keys. The client fills in what is in {braces}."""
    return {
        "connected": _("Connected"),
        "connection_lost": _(
            "The connection is lost. Your jobs run on, and this page catches up by itself."
        ),
        "slower": _("Updates come by a slower way, because no WebSocket gets through."),
        "session_ended": _("You have signed out."),
        "closed": _("This page has closed its connection."),
        "aborted": _("This page no longer waits for the job."),
        "outcome_unknown": _("The server did not answer, so this may yet be done."),
        "http_error": _("The server refused this with the status {status}."),
        "bad_request": _("The request must be a string of 1 to {most} printable characters."),
        "params_no_json": _("The params are not JSON: {error}."),
        "params_half_character": _(
            "The params hold half of a character, which slice() leaves when it cuts an emoji."
        ),
        "params_too_large": _("The params are too large."),
        "name": _("{backend} {id}"),
        "name_unknown": _("job {id}"),
        "state_queued": _("Queued"),
        "state_starting": _("Starting"),
        "state_running": _("Running"),
        "state_cancelling": _("Cancelling"),
        "state_succeeded": _("Succeeded"),
        "state_failed": _("Failed"),
        "state_cancelled": _("Cancelled"),
        "state_expired": _("Expired"),
        "state_unknown": _("Not available"),
        "unknown_job": _("There is no such job, or it is not yours."),
        "percent": _("{percent} %"),
        "cancel": _("Cancel"),
        "cancel_job": _("Cancel {name}"),
        "cancelling": _("Cancelling…"),
        "cancelling_job": _("Cancelling {name}"),
        "result": _("Result"),
        "whole_result": _("Open the whole result"),
        "seconds": _("{s} s"),
        "minutes": _("{min} min {s} s"),
        "hours": _("{h} h {min} min"),
        "time_active": _("started {clock}"),
        "time_ended": _("{clock} · took {duration}"),
        "said_queued": _("{name} queued"),
        "said_starting": _("{name} starting"),
        "said_running": _("{name} running"),
        "said_cancelling": _("{name} cancelling"),
        "said_succeeded": _("{name} succeeded"),
        "said_failed": _("{name} failed"),
        "said_cancelled": _("{name} cancelled"),
        "said_expired": _("{name} expired"),
        "said_error": _("{said}: {error}"),
        "said_percent": _("{name} {percent} %"),
        "said_more": _plural(
            lambda count: ngettext("{said}. And {count} more", "{said}. And {count} more", count)
        ),
        "told_rabbitmq": _(
            "Updates are delayed: RabbitMQ is away. Your jobs run on, and this page catches"
            " up by itself."
        ),
        "told_ledger": _(
            "Updates are delayed: the database is away. This page catches up by itself."
        ),
        "told_work": _(
            "Updates are delayed: the workers have more to do than they can at the moment."
            " This page catches up by itself."
        ),
        "told_login_required": _("Sign in to run jobs and to see yours."),
        "told_no_audience": _("You are signed in, but your account may see no jobs here."),
        "told_too_many_sockets": _("Too many pages of yours are open; close some."),
        "told_busy": _("Too many visitors come at once; try again in a moment."),
        "told_unavailable": _("The database is away; try again in a moment."),
    }


def page_texts() -> dict[str, Text]:
    """The texts of words.js, which only the pages of `progrock.urls` need."""
    return {
        "page_connecting": _("Connecting"),
        "page_live": _("Live"),
        "page_delayed": _("Delayed"),
        "page_offline": _("Offline"),
        "page_refused": _("Signed out"),
        "page_no_audience": _("No access"),
        "page_again": _("Run again"),
        "page_change": _("Change and run"),
        "page_more": _plural(
            lambda count: ngettext(
                "{count} more job is shown", "{count} more jobs are shown", count
            )
        ),
        "page_found": _plural(
            lambda count: ngettext("{count} job matches", "{count} jobs match", count)
        ),
        "page_notify_on": _("You will be notified when a job ends while this page is hidden."),
        "page_notify_off": _("Notifications are off."),
        "page_notify_denied": _(
            "Your browser blocks notifications of this page."
            " Allow them in its settings for this site."
        ),
        "page_notify_several": _plural(
            lambda count: ngettext("{count} job has ended", "{count} jobs have ended", count)
        ),
        "page_notify_succeeded": _("{name} succeeded"),
        "page_notify_failed": _("{name} failed"),
        "page_notify_cancelled": _("{name} was cancelled"),
        "page_notify_expired": _("{name} expired"),
        "page_left": _("about {time} left"),
        "page_rows": _plural(lambda count: ngettext("{count} row", "{count} rows", count)),
        "page_some_rows": _("{shown} of {count} rows"),
        "page_long": _("Show it"),
        "page_load": _("Load it here"),
        "page_loading": _("Loading…"),
        "page_not_loaded": _("It could not be loaded. Try again."),
        "page_copied": _("Link copied"),
        "page_not_copied": _("Copy the address of this page"),
        "page_summary": _("{active} active, {ended} ended"),
        "page_unsent": _plural(
            lambda count: ngettext(
                "{count} job starts as soon as the connection is back.",
                "{count} jobs start as soon as the connection is back.",
                count,
            )
        ),
    }


def form_texts() -> dict[str, Text]:
    """The texts of form.js, which makes forms of JSON Schemas."""
    return {
        "form_add": _("Add"),
        "form_above": _("Write a number above {above}."),
        "form_below": _("Write a number below {below}."),
        "form_choose": _("Choose…"),
        "form_date_time": _("In your own time, {zone}."),
        "form_few": _plural(
            lambda count: ngettext(
                "Give at least {count} entry.", "Give at least {count} entries.", count
            )
        ),
        "form_inexact": _("A browser loses the last digits of whole numbers above {most}."),
        "form_json": _("Written as JSON."),
        "form_long": _plural(
            lambda count: ngettext(
                "Write {count} character at most.", "Write {count} characters at most.", count
            )
        ),
        "form_many": _plural(
            lambda count: ngettext(
                "Give {count} entry at most.", "Give {count} entries at most.", count
            )
        ),
        "form_max": _("Write {max} or less."),
        "form_min": _("Write {min} or more."),
        "form_must": _("Tick this to go on."),
        "form_no_json": _("This is not JSON: {error}."),
        "form_no_object": _('Write a JSON object, such as {"name": "value"}.'),
        "form_none": _("No choice"),
        "form_nothing": _("There is nothing to fill in."),
        "form_numbered": _("{title} {number}"),
        "form_optional": _("optional"),
        "form_params": _("Params"),
        "form_pattern": _("This does not have the form that is wanted: {pattern}"),
        "form_remove": _("Remove"),
        "form_remove_entry": _("Remove {name}"),
        "form_required": _("Fill this in."),
        "form_short": _plural(
            lambda count: ngettext(
                "Write at least {count} character.", "Write at least {count} characters.", count
            )
        ),
        "form_step": _("Write a multiple of {step}."),
        "form_twice": _("Two entries are the same."),
        "form_whole": _("Write a whole number."),
    }


def _plural(form: Callable[[int], str]) -> Text:
    """A text in each plural form of the active language, by the categories of Intl.PluralRules.

    It is a plain text where all forms are the same.
    """
    other = form(_NUMBERS["other"])
    forms = {category: form(number) for category, number in _NUMBERS.items()}
    special = {category: text for category, text in forms.items() if text != other}
    return {**special, "other": other} if special else other
