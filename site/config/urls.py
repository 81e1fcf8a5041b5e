"""The URLs of the project that runs ProgRock by itself: its pages and the admin."""

from django.contrib import admin
from django.urls import include, path

urlpatterns = [path("admin/", admin.site.urls), path("", include("progrock.urls"))]
