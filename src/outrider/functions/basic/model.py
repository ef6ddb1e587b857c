"""Types that the AMF and the SMF share; patterns are those of TS 29.571."""

from importlib.resources import files
from typing import Annotated

import msgspec

from outrider.sbi.http import Handler, Request, Response

Supi = Annotated[str, msgspec.Meta(pattern=r"^(imsi-[0-9]{5,15}|nai-.+|gci-.+|gli-.+)$", max_length=255)]
Uri = Annotated[str, msgspec.Meta(pattern=r"^https?://[^\s/]+", max_length=2048)]
Text = Annotated[str, msgspec.Meta(max_length=255)]


def openapi(api: str) -> Handler:
    """Serves the OpenAPI file of an API; it says nothing secret, so no token is asked for."""
    text = (files("outrider.functions.basic") / "openapi" / f"{api}.yaml").read_bytes()

    async def serve(request: Request) -> Response:
        return Response(200, [("content-type", "application/yaml")], text)

    return serve
