"""Serves the OpenAPI files of the LMSF's own APIs, each at `/{api}/v1/openapi.yaml`."""

from importlib.resources import files

from outrider.sbi.http import Handler, Request, Response
from outrider.sbi.router import Router

APIS = (
    "nlmsf-catalogue",
    "nlmsf-negotiation",
    "nlmsf-permission",
    "nlmsf-migration",
    "nlmsf-policy",
    "nlmsf-relocation",
    "nlmsf-audit",
)


def text(api: str) -> bytes:
    """The OpenAPI file of an API."""
    return (files("outrider.functions.lmsf") / "openapi" / f"{api}.yaml").read_bytes()


def routes(router: Router) -> None:
    """Serve every file; they say nothing secret, so no token is asked for."""
    for api in APIS:
        router.add("GET", f"/{api}/v1/openapi.yaml", _serve(api))


def _serve(api: str) -> Handler:
    async def serve(request: Request) -> Response:
        return Response(200, [("content-type", "application/yaml")], text(api))

    return serve
