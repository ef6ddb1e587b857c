"""Routes a request by method and path template, and turns what goes wrong in a handler into ProblemDetails."""

import traceback
from urllib.parse import unquote

import msgspec
import structlog

from outrider.core.refusal import Refused
from outrider.sbi.client import Unreachable
from outrider.sbi.http import Handler, Request, Response
from outrider.sbi.problem import problem, refusal_response

_log = structlog.get_logger(__name__)


class _Node:
    """One segment of the paths: what may follow it, and what it answers."""

    __slots__ = ("fixed", "handlers", "mounted", "variable", "variable_name")

    def __init__(self) -> None:
        self.fixed: dict[str, _Node] = {}
        self.variable: _Node | None = None
        self.variable_name = ""
        self.handlers: dict[str, Handler] = {}
        self.mounted: Handler | None = None


class Router:
    """A handler made of handlers, each for a method and a template such as `/nnrf-nfm/v1/nf-instances/{nfInstanceId}`.

    A fixed segment wins over a variable one. A variable matches exactly one segment, which is not empty.
    """

    def __init__(self) -> None:
        self._root = _Node()

    def add(self, method: str, template: str, handler: Handler) -> None:
        """Answer `method` on paths that fit `template` with `handler`."""
        node = self._reach(template)
        if method in node.handlers:
            raise ValueError(f"{method} {template} is routed twice")
        node.handlers[method] = handler

    def mount(self, prefix: str, handler: Handler) -> None:
        """Give every path under `prefix` that no template fits to `handler`, unchanged."""
        node = self._reach(prefix)
        if node.mounted is not None:
            raise ValueError(f"{prefix} is mounted twice")
        node.mounted = handler

    def _reach(self, template: str) -> _Node:
        node = self._root
        for segment in template.strip("/").split("/"):
            if segment.startswith("{") and segment.endswith("}"):
                name = segment[1:-1]
                if node.variable is None:
                    node.variable, node.variable_name = _Node(), name
                elif node.variable_name != name:
                    raise ValueError(f"{template}: another template calls this segment {{{node.variable_name}}}")
                node = node.variable
            else:
                node = node.fixed.setdefault(segment, _Node())
        return node

    async def __call__(self, request: Request) -> Response:
        """Answer; nothing but a cancellation escapes."""
        node = self._root
        mounted: Handler | None = None
        params: dict[str, str] = {}
        for segment in request.path[1:].split("/"):
            mounted = node.mounted or mounted
            following = node.fixed.get(segment)
            if following is None:
                if node.variable is None or not segment:
                    break
                params[node.variable_name] = unquote(segment) if "%" in segment else segment
                following = node.variable
            node = following
        else:
            mounted = node.mounted or mounted
            handler = node.handlers.get(request.method)
            if handler is not None:
                return await guarded(handler, msgspec.structs.replace(request, params=params) if params else request)
            if node.handlers:
                return problem(
                    405,
                    "METHOD_NOT_ALLOWED",
                    f"{request.path} does not take {request.method}.",
                    headers=[("allow", ", ".join(sorted(node.handlers)))],
                )
        if mounted is not None:
            return await guarded(mounted, request)
        return problem(404, "RESOURCE_URI_STRUCTURE_NOT_FOUND", f"Nothing is served at {request.path}.")


async def guarded(handler: Handler, request: Request) -> Response:
    """The handler's answer; a refusal or an exception becomes ProblemDetails."""
    try:
        return await handler(request)
    except Refused as refused:
        return refusal_response(*refused.refusals)
    except msgspec.DecodeError as error:
        return problem(400, "INVALID_MSG_FORMAT", str(error))
    except Unreachable as error:
        # 504 even when the peer was certainly not reached: the handler may have had other effects before.
        return problem(504, "TARGET_NF_NOT_REACHABLE", str(error))
    except RecursionError:
        return problem(400, "INVALID_MSG_FORMAT", "The request is nested too deeply.")
    except Exception:
        # Formatted here, because a renderer that shows local variables would show tokens and keys. Of the path only
        # what names the API: the rest may name a UE.
        trace = traceback.format_exc()
        api = "/".join(request.path.split("/")[:3])
        _log.error("handler failed", method=request.method, api=api, traceback=trace)
        return problem(500, "UNSPECIFIED_NF_FAILURE", "The request met a fault; the log of this function has it.")
