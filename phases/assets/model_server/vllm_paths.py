"""Gives vLLM's server the paths that the other replicas have: `--middleware vllm_paths.Paths`."""

PREFIX = "/openai"

# Where vLLM tells that it is ready.
HEALTH = "/health"


class Paths:
    """ASGI middleware: `/openai/v1/…` is `/v1/…`, and the health paths of V2 are vLLM's own."""

    def __init__(self, app):
        self.app = app

    async def __call__(self, scope, receive, send):
        if scope["type"] == "http":
            scope = {**scope, "path": translated(scope["path"])}
        await self.app(scope, receive, send)


def translated(path):
    if path in ("/v2/health/ready", "/v2/health/live") or (path.startswith("/v2/models/") and path.endswith("/ready")):
        return HEALTH
    return path.removeprefix(PREFIX) if path.startswith(f"{PREFIX}/") else path
