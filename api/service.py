"""The service itself: health, metrics, languages."""

from __future__ import annotations

from prometheus_client.exposition import choose_encoder
from starlette.requests import Request
from starlette.responses import Response

from api.addresses import TheInterpreter
from api.answers import answer
from api.documentation import errors
from api.metrics import Metrics
from api.routes import noun
from interpreter.models import Health, Language

router = noun("service")


@router.get(
    "/health",
    response_model=Health,
    responses={503: {"description": "It does not work now.", "model": Health}, **errors()},
    summary="Ask whether the service works",
)
async def get_health(interpreter: TheInterpreter) -> Response:
    """Needs no token."""
    health = interpreter.health()
    return answer(health, 200 if health.ok else 503)


@router.get(
    "/metrics",
    response_class=Response,
    responses={200: {"content": {"text/plain": {"schema": {"type": "string"}}}}, **errors()},
    summary="Metrics for Prometheus",
)
async def get_metrics(request: Request) -> Response:
    """Requests and executions counted, sandboxes and what is in them as they are now."""
    metrics: Metrics = request.app.state.metrics
    encode, media_type = choose_encoder(request.headers.get("accept", ""))
    return Response(encode(metrics.registry), media_type=media_type)


@router.get(
    "/v1/languages",
    response_model=list[Language],
    responses=errors(),
    summary="List languages",
)
async def list_languages(interpreter: TheInterpreter) -> Response:
    """Those that can run here, and what is missing for the others."""
    return answer(await interpreter.languages())
