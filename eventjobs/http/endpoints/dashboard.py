"""The dashboard, the login page, and a module for pages of others: files without a build step.

They use the public API only.
"""

from importlib.resources import files

from aiohttp import web

from eventjobs.http.app_context import AppContext

_POLICY = (
    "default-src 'none'; script-src 'self'; style-src 'self'; connect-src 'self'; "
    "img-src 'self' data:; base-uri 'none'; form-action 'self'; frame-ancestors 'none'; "
    "require-trusted-types-for 'script'"
)
_FOLDER = files("eventjobs.http").joinpath("dashboard")
_PAGES = {
    path: (_FOLDER.joinpath(name).read_bytes(), f"{media_type}; charset=utf-8")
    for path, name, media_type in (
        ("/", "index.html", "text/html"),
        ("/login", "login.html", "text/html"),
        ("/login.js", "login.js", "text/javascript"),
        ("/dashboard.js", "dashboard.js", "text/javascript"),
        ("/dashboard.css", "dashboard.css", "text/css"),
        ("/poll.js", "poll.js", "text/javascript"),
    )
}


async def page(context: AppContext, request: web.Request) -> web.StreamResponse:
    """A file of the dashboard or the login page, or the module that polls."""
    body, content_type = _PAGES[request.path]
    headers = {
        "Content-Type": content_type,
        "Content-Security-Policy": _POLICY,
        "Cache-Control": "no-cache",
        "Cross-Origin-Opener-Policy": "same-origin",
        "Cross-Origin-Resource-Policy": "same-origin",
        "Referrer-Policy": "no-referrer",
        "X-Frame-Options": "DENY",
    }
    return web.Response(body=body, headers=headers)
