"""Jobs in Django's admin: find and read them, cancel them, have them polled now, run them again.

Nothing is edited here, because the workers write the rows.
"""

import uuid
from collections import Counter
from typing import Any

from django.contrib import admin, messages
from django.contrib.admin.models import CHANGE, LogEntry
from django.contrib.admin.options import get_content_type_for_model
from django.contrib.admin.views.main import ChangeList
from django.db.models import QuerySet
from django.http import HttpRequest, HttpResponse, HttpResponseRedirect
from django.shortcuts import redirect
from django.template.defaultfilters import filesizeformat
from django.urls import reverse
from django.utils import formats
from django.utils.dateformat import format as format_date
from django.utils.html import format_html, format_html_join
from django.utils.safestring import SafeString
from django.utils.text import Truncator
from django.utils.timezone import is_aware, localtime
from django.utils.translation import gettext, ngettext
from django.utils.translation import gettext_lazy as _

from progrock import clock, conf, milestones, orders, pages, wire
from progrock.milestones import Milestone
from progrock.models import STATES_OF, Job, State
from progrock.owners import names_of

#: A longer result is not shown here, but on the job's own page.
LONGEST_RESULT = 65_536
#: How many characters of an error and of an owner the list shows.
LONGEST_ERROR, LONGEST_OWNER = 60, 24

#: The actions as buttons on the page of one job.
BUTTONS = (("cancel_jobs", _("Cancel")), ("look_now", _("Look now")), ("run_again", _("Run again")))
#: The columns that may be large and that the list does not show.
_NOT_IN_THE_LIST = ("params", "result", "milestones", "handle")


class JobList(ChangeList):
    """The list of jobs. It reads all owners' names in one query, and no large columns."""

    def get_queryset(self, request: HttpRequest, exclude_parameters: Any = None) -> Any:
        """The jobs without their large columns."""
        found = super().get_queryset(request, exclude_parameters)
        return found.defer(*_NOT_IN_THE_LIST)

    def get_results(self, request: HttpRequest) -> None:
        """The jobs of this page, each with the name of its owner."""
        super().get_results(request)
        names = names_of(job.audience for job in self.result_list)
        for job in self.result_list:
            job.owner_name = names[job.audience]


class StateFilter(admin.SimpleListFilter):
    """Filters by one state, or by all active or all ended ones."""

    title = _("state")
    parameter_name = "state"

    def lookups(self, request: HttpRequest, model_admin: Any) -> Any:
        """The choices."""
        return [("active", _("Active")), ("ended", _("Ended")), *State.choices]

    def queryset(self, request: HttpRequest, queryset: QuerySet[Job]) -> QuerySet[Job]:
        """The jobs in the chosen states."""
        if (value := self.value()) is None:
            return queryset
        return queryset.filter(state__in=STATES_OF.get(value, ()))


class BackendFilter(admin.SimpleListFilter):
    """Filters by backend. The choices come from the backends' file and not from the database."""

    title = _("backend")
    parameter_name = "backend"

    def lookups(self, request: HttpRequest, model_admin: Any) -> Any:
        """The choices."""
        return [(name, options.title or name) for name, options in conf.backends().items()]

    def queryset(self, request: HttpRequest, queryset: QuerySet[Job]) -> QuerySet[Job]:
        """The jobs of the chosen backend."""
        return queryset.filter(backend=value) if (value := self.value()) else queryset


@admin.register(Job)
class JobAdmin(admin.ModelAdmin):  # type: ignore[type-arg]  # generic only in the stubs
    """The jobs, read only except for the actions."""

    list_display = ("name", "state_and_progress", "took", "short_owner", "begun")
    list_filter = (StateFilter, BackendFilter, "created_at")
    list_per_page = 50
    # A search looks for a part of any of the three. There is no date hierarchy, because that would
    # read the whole table.
    search_fields = ("id", "audience", "message")
    search_help_text = _("By id, audience or message")
    ordering = ("-created_at",)
    actions = ("cancel_jobs", "look_now", "run_again")
    show_full_result_count = False
    fieldsets = (
        (None, {"fields": ("id", "backend", "label", "owner", "state", "bar", "message", "error")}),
        (_("What happened"), {"fields": ("story", "took", "deadline_at")}),
        (_("Params and result"), {"fields": ("pretty_params", "pretty_result")}),
        (
            _("For operators"),
            {
                "classes": ("collapse",),
                "fields": (
                    "audience",
                    "handle",
                    "request",
                    "due_at",
                    "turn",
                    "version",
                    "attempts",
                    "crashes",
                    "sweeps",
                    "missing_at",
                    "cancel_requested",
                    "cancel_taken",
                    "changed_at",
                    "owed_at",
                ),
            },
        ),
    )

    class Media:
        """Styles that keep the list narrow and long texts within the page."""

        css = {"all": ("progrock/admin.css",)}  # noqa: RUF012  (Django's own form)

    # What is read

    def get_queryset(self, request: HttpRequest) -> QuerySet[Job]:
        """Jobs without their results, which may be large. `pretty_result` reads that of one job."""
        return super().get_queryset(request).defer("result")

    def get_changelist(self, request: HttpRequest, **options: Any) -> type[ChangeList]:
        """The list with its owners' names."""
        return JobList

    def get_search_results(self, request: HttpRequest, queryset: Any, search_term: str) -> Any:
        """A whole id finds its job by the primary key, without a search through all texts."""
        try:
            return queryset.filter(pk=uuid.UUID(search_term.strip())), False
        except ValueError:
            return super().get_search_results(request, queryset, search_term)

    def get_readonly_fields(self, request: HttpRequest, obj: Job | None = None) -> tuple[str, ...]:
        """All fields."""
        return tuple(str(name) for _, options in self.fieldsets for name in options["fields"])

    def view_on_site(self, obj: Job) -> str | None:
        """The address of the job's own page; None in a project without `progrock.urls`."""
        return wire.address_of(str(obj.pk))

    # What is shown

    @admin.display(description=_("job"), ordering="backend")
    def name(self, job: Job) -> SafeString:
        """The backend, the first digits of the id as on the page, and what people call the job."""
        lines = [str(job.pk)[:8], *([job.label] if job.label else [])]
        return format_html("{}{}", job.backend, _under(*lines))

    @admin.display(description=_("state"), ordering="state")
    def state_and_progress(self, job: Job) -> SafeString:
        """The state with the progress, and below it the beginning of the error."""
        state = format_html("{} {}", job.get_state_display(), self.bar(job))
        if not job.error:
            return state
        return format_html("{}{}", state, _under(_short(job.error, LONGEST_ERROR)))

    @admin.display(description=_("progress"), empty_value="–")
    def bar(self, job: Job) -> str:
        """A progress bar. It has no value while the backend does not say how far the job is."""
        label = f"{job.backend} {str(job.pk)[:8]}"
        if job.progress is None:
            bar = '<progress max="100" aria-label="{}"></progress>'
            return format_html(bar, label) if job.active else ""
        return format_html(
            '<progress max="100" value="{}" aria-label="{}"></progress> {}&nbsp;%',
            job.progress,
            label,
            round(job.progress),
        )

    @admin.display(description=_("created"), ordering="created_at")
    def begun(self, job: Job) -> SafeString:
        """When it was created: the day, and below it the time."""
        at = localtime(job.created_at) if is_aware(job.created_at) else job.created_at
        return format_html(
            "{}{}", formats.date_format(at, "SHORT_DATE_FORMAT"), _under(formats.time_format(at))
        )

    @admin.display(description=_("duration"))
    def took(self, job: Job) -> str:
        """How long the job took, or has taken until now."""
        until = job.ended_at or clock.as_datetime(clock.now())
        return pages.duration((until - job.created_at).total_seconds())

    @admin.display(description=_("owner"), ordering="audience")
    def short_owner(self, job: Job) -> str:
        """Whose job it is: the user's name, or the beginning of the audience."""
        return _short(job.owner_name, LONGEST_OWNER)  # type: ignore[attr-defined]  # of JobList

    @admin.display(description=_("owner"))
    def owner(self, job: Job) -> str:
        """Whose job it is: the user's name, or the audience."""
        return names_of([job.audience])[job.audience]

    @admin.display(description=_("milestones"))
    def story(self, job: Job) -> SafeString:
        """What happened to the job, as a table."""
        rows = (
            (
                format_date(localtime(event.at), "Y-m-d H:i:s"),
                milestones.WORDS.get(event.what, event.what),
                _link(event.text) if event.what == Milestone.AGAIN else event.text,
            )
            for event in job.story
        )
        lines = format_html_join("", "<tr><td>{}</td><td>{}</td><td>{}</td></tr>", rows)
        return format_html('<table class="progrock-story">{}</table>', lines)

    @admin.display(description=_("params"))
    def pretty_params(self, job: Job) -> SafeString:
        """The params as JSON with an indent."""
        return _pretty(job.params)

    @admin.display(description=_("result"))
    def pretty_result(self, job: Job) -> str | SafeString:
        """The result as JSON with an indent, unless it is large."""
        if job.result_size is None:
            return "–"
        if job.result_size > LONGEST_RESULT:
            size = filesizeformat(job.result_size)
            return gettext("Too large to be shown here (%(size)s)") % {"size": size}
        return _pretty(job.result)

    # What is done

    @admin.action(description=_("Cancel the selected jobs"), permissions=["operate"])
    def cancel_jobs(self, request: HttpRequest, queryset: QuerySet[Job]) -> None:
        """Ask for the cancellation of the active ones among the selected jobs."""
        chosen = _ids(queryset)
        done = orders.cancel(chosen)
        self._record(request, done, gettext("Cancellation asked for"))
        sentence = ngettext(
            "Cancellation asked for: %(done)d of %(all)d job.",
            "Cancellation asked for: %(done)d of %(all)d jobs.",
            len(chosen),
        )
        self._report(request, sentence, done, chosen)

    @admin.action(description=_("Look at the selected jobs now"), permissions=["operate"])
    def look_now(self, request: HttpRequest, queryset: QuerySet[Job]) -> None:
        """Make due now those of the selected jobs that wait for their next step."""
        chosen = _ids(queryset)
        done = orders.look_now(chosen)
        sentence = ngettext(
            "Looked at now: %(done)d of %(all)d job.",
            "Looked at now: %(done)d of %(all)d jobs.",
            len(chosen),
        )
        self._report(request, sentence, done, chosen)

    @admin.action(description=_("Run the selected jobs again"), permissions=["operate"])
    def run_again(self, request: HttpRequest, queryset: QuerySet[Job]) -> None:
        """Start a new job for each selected one, with the same audience, backend and params."""
        wanted = queryset.defer(None).only("id", "audience", "backend", "params")
        done, refused = orders.again(wanted)
        self._record(request, done, gettext("Started again"))
        sentence = ngettext(
            "Started again: %(done)d of %(all)d job.",
            "Started again: %(done)d of %(all)d jobs.",
            len(done) + len(refused),
        )
        self._report(request, sentence, done, [*done, *refused])
        for reason, times in Counter(refused).most_common(5):
            self.message_user(request, f"{times} × {reason}", messages.ERROR)

    def render_change_form(
        self,
        request: HttpRequest,
        context: Any,
        add: bool = False,
        change: bool = False,
        form_url: str = "",
        obj: Job | None = None,
    ) -> HttpResponse:
        """Add a button to the page of one job for each action that it can have."""
        if obj is not None and self.has_operate_permission(request):
            context["buttons"] = [
                (name, text) for name, text in BUTTONS if obj.active or name == "run_again"
            ]
        return super().render_change_form(request, context, add, change, form_url, obj)

    def response_action(self, request: HttpRequest, queryset: QuerySet[Job]) -> Any:
        """Go back to the page of one job if the action was a button there."""
        answer = super().response_action(request, queryset)
        job_id = request.POST.get("_selected_action")
        if "_back" in request.POST and job_id and isinstance(answer, HttpResponseRedirect):
            return redirect("admin:progrock_job_change", job_id)
        return answer

    def _report(self, request: HttpRequest, sentence: str, done: list[str], chosen: Any) -> None:
        level = messages.SUCCESS if done else messages.WARNING
        counts = {"done": len(done), "all": len(chosen)}
        self.message_user(request, sentence % counts, level)

    def _record(self, request: HttpRequest, job_ids: list[str], message: str) -> None:
        """Write into the admin's history of each job what this user did."""
        kind, user = get_content_type_for_model(Job), request.user.pk
        assert user is not None
        LogEntry.objects.bulk_create(
            LogEntry(
                user_id=user,
                content_type=kind,
                object_id=job_id,
                object_repr=job_id,
                action_flag=CHANGE,
                change_message=message,
            )
            for job_id in job_ids
        )

    # Who may do what

    def has_operate_permission(self, request: HttpRequest) -> bool:
        """Whether this user may use the actions: whoever has `progrock.change_job` may."""
        return bool(request.user.has_perm("progrock.change_job"))

    def has_add_permission(self, request: HttpRequest) -> bool:
        """Never, because jobs are started through the API."""
        return False

    def has_delete_permission(self, request: HttpRequest, obj: Job | None = None) -> bool:
        """Not for an active job, because it would run on at its backend."""
        return super().has_delete_permission(request, obj) and not (obj and obj.active)

    def get_deleted_objects(self, objs: Any, request: HttpRequest) -> Any:
        """What Django shows before it deletes jobs. Active ones are among the protected."""
        listed, counts, lacking, protected = super().get_deleted_objects(objs, request)
        active = [
            gettext("%(job)s is %(state)s; cancel it first")
            % {"job": job, "state": job.get_state_display()}
            for job in objs
            if job.active
        ]
        if self.has_delete_permission(request):  # then only active jobs lack it
            lacking = lacking - {Job._meta.verbose_name}
        return listed, counts, lacking, [*protected, *active]

    def has_change_permission(self, request: HttpRequest, obj: Any = None) -> bool:
        """Never, because the workers write the rows."""
        return False


def _ids(jobs: QuerySet[Job]) -> list[str]:
    return [str(job_id) for job_id in jobs.values_list("pk", flat=True)]


def _under(*lines: str) -> SafeString:
    """Lines below the first one of a cell, in a quiet colour."""
    quiet = '<br><span class="progrock-quiet">{}</span>'
    return format_html_join("", quiet, ((line,) for line in lines))


def _short(text: str, longest: int) -> str:
    """The beginning of a text on one line. The `title` attribute has the whole text."""
    line = milestones.one_line(text, longest + 1)
    if len(line) <= longest:
        return line
    return format_html('<span title="{}">{}</span>', text, Truncator(line).chars(longest))


def _link(job_id: str) -> SafeString:
    url = reverse("admin:progrock_job_change", args=[job_id])
    return format_html('<a href="{}">{}</a>', url, job_id)


def _pretty(value: Any) -> SafeString:
    return format_html('<pre class="progrock-json" tabindex="0">{}</pre>', pages.pretty(value))
