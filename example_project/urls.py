"""Where things are: the API, the approvals of the package, Django's admin."""

from django.contrib import admin
from django.contrib.staticfiles.views import serve
from django.urls import include, path
from django.views.generic import RedirectView
from rest_framework.authtoken.views import obtain_auth_token

urlpatterns = [
    path("", RedirectView.as_view(url="/api/")),
    path("api/", include("example_project.backoffice.urls")),
    path("api/token/", obtain_auth_token, name="token"),
    path("api-auth/", include("rest_framework.urls")),
    path("approvals/", include("jit_approval.urls")),
    path("admin/", admin.site.urls),
    # The example serves its own style sheets; in production the web server does.
    path("static/<path:path>", serve, {"insecure": True}),
]
