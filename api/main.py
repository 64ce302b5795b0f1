"""The FastAPI application."""

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from importlib.metadata import version

from fastapi import FastAPI

from api import (
    errors,
    events,
    health,
    jobs,
    metrics,
    openapi,
    page,
    parts,
    results,
    retry,
    scorefile,
    webhooks,
)
from api.body_limit import BodyLimit
from api.request_id import RequestId
from api.services import Services
from api.traces import request_traces
from worker.jobs.settings import Settings


def create_app(settings: Settings) -> FastAPI:
    """Build the application."""
    services = Services.connect(settings)

    @asynccontextmanager
    async def lifespan(_app: FastAPI) -> AsyncIterator[None]:
        async with services.waiters.listening():
            yield

    app = FastAPI(
        title="Piqueue",
        summary="Scores pictures in bulk",
        version=version("piqueue"),
        lifespan=lifespan,
        telemetry=request_traces(),
    )
    app.state.services = services
    errors.install(app)
    app.add_middleware(BodyLimit, max_bytes=services.settings.max_request_bytes)
    app.add_middleware(RequestId)
    for router in (
        jobs.router,
        events.router,
        webhooks.router,
        results.router,
        parts.router,
        retry.router,
        scorefile.router,
        health.router,
        metrics.router,
        page.router,
    ):
        app.include_router(router)
    metrics.install(app, services)
    openapi.install(app)
    return app
