"""Jobs in Django's admin, to find, read and cancel them.

Nothing is edited here, because the workers write the rows.
"""

from typing import Any

from django.contrib import admin, messages
from django.db.models import QuerySet
from django.http import HttpRequest
from django.utils.html import format_html

from progrock import api
from progrock.models import Job


@admin.register(Job)
class JobAdmin(admin.ModelAdmin):  # type: ignore[type-arg]  # generic only in the stubs
    """The jobs, read only except for the cancel action."""

    list_display = (
        "short_id",
        "backend",
        "state",
        "bar",
        "message",
        "audience",
        "created_at",
        "ended_at",
    )
    list_filter = ("state", "backend", "cancel_requested", "created_at")
    search_fields = ("id", "audience", "handle", "request", "message", "error")
    date_hierarchy = "created_at"
    ordering = ("-created_at",)
    actions = ("cancel_jobs",)
    show_full_result_count = False

    @admin.display(description="job", ordering="id")
    def short_id(self, job: Job) -> str:
        """The first digits of the id, as the page shows them."""
        return str(job.pk)[:8]

    @admin.display(description="progress", ordering="progress")
    def bar(self, job: Job) -> str:
        """A progress bar. It has no value while the backend cannot tell the progress."""
        label = f"{job.backend} {str(job.pk)[:8]}"
        if job.progress is None:
            if not job.active:
                return "–"
            return format_html('<progress max="100" aria-label="{}"></progress>', label)
        return format_html(
            '<progress max="100" value="{}" aria-label="{}"></progress> {}&nbsp;%',
            job.progress,
            label,
            round(job.progress),
        )

    @admin.action(description="Cancel the selected jobs", permissions=["cancel"])
    def cancel_jobs(self, request: HttpRequest, queryset: QuerySet[Job]) -> None:
        """Ask for the cancellation of those that are active."""
        asked = sum(api.cancel(job) for job in queryset)
        self.message_user(
            request, f"Cancellation asked for {asked} of {queryset.count()} jobs.", messages.SUCCESS
        )

    def has_cancel_permission(self, request: HttpRequest) -> bool:
        """Who may change jobs may cancel them."""
        return bool(request.user.has_perm("progrock.change_job"))

    def has_add_permission(self, request: HttpRequest) -> bool:
        """Jobs are started through the API."""
        return False

    def has_delete_permission(self, request: HttpRequest, obj: Job | None = None) -> bool:
        """Only a job that has ended can be deleted: the backend of an active one would run on."""
        return super().has_delete_permission(request, obj) and not (obj and obj.active)

    def get_deleted_objects(self, objs: Any, request: HttpRequest) -> Any:
        """What the bulk action asks about; active jobs stand there as protected."""
        listed, counts, lacking, protected = super().get_deleted_objects(objs, request)
        active = [f"{job} is {job.state}; cancel it first" for job in objs if job.active]
        return listed, counts, lacking, [*protected, *active]

    def has_change_permission(self, request: HttpRequest, obj: Any = None) -> bool:
        """The workers write the rows."""
        return False
