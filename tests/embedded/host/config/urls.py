"""The host's URLs: ProgRock's pages under a path of the host's choosing."""

from django.contrib import admin
from django.urls import include, path
from jobs import views

urlpatterns = [
    path("admin/", admin.site.urls),
    path("printing/", views.printing),
    path("progress/", include("progrock.urls")),
]
