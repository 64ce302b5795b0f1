"""The FastAPI application."""

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager, suppress
from importlib.metadata import version

from fastapi import Depends, FastAPI
from starlette.concurrency import run_in_threadpool

from api import errors
from api.middleware import metrics
from api.middleware.body_limit import BodyLimit
from api.middleware.cross_origin import allow_origins
from api.middleware.methods import HeadAsGet
from api.middleware.proxies import BehindProxy
from api.middleware.request_id import RequestId
from api.middleware.security_headers import SecurityHeaders
from api.middleware.traces import request_traces
from api.openapi import document
from api.routes import (
    events,
    histogram,
    jobs,
    page,
    parts,
    report,
    rescore,
    results,
    retry,
    scorefile,
    similar,
    status,
    thumbnails,
    webhooks,
)
from api.services import Services
from api.urls import refuse_unfit_parameters
from worker.jobs.errors import LedgerUnavailable
from worker.jobs.settings import Settings


def create_app(settings: Settings) -> FastAPI:
    """Build the application."""
    services = Services(settings)

    @asynccontextmanager
    async def lifespan(_app: FastAPI) -> AsyncIterator[None]:
        learning = asyncio.create_task(_learn_of_keys(services))
        async with services.job_events.receiving():
            yield
        await learning

    app = FastAPI(
        title="Piqueue",
        summary="Scores pictures in bulk",
        version=version("piqueue-server"),
        docs_url=None,
        redoc_url=None,
        lifespan=lifespan,
        # Generated clients name their methods by these ids.
        generate_unique_id_function=lambda route: route.name,
        telemetry=request_traces(),
    )
    app.state.services = services
    errors.install(app)
    app.add_middleware(BodyLimit, settings)
    app.add_middleware(HeadAsGet)
    allow_origins(app, settings.cors_origins)
    app.add_middleware(BehindProxy, settings.root_path, settings.trusted_proxies)
    app.add_middleware(SecurityHeaders)
    app.add_middleware(RequestId)
    # FastAPI tries them in this order.
    of_jobs = (jobs, events, webhooks, results, histogram, report, thumbnails, parts, retry)
    for module in (scorefile, *of_jobs, rescore, similar):
        app.include_router(module.router, dependencies=[Depends(refuse_unfit_parameters)])
    for module in (status, metrics):
        app.include_router(module.router)
    metrics.install(app, services)
    page.install(app)
    document.install(app)
    return app


async def _learn_of_keys(services: Services) -> None:
    """Look for API keys, so that they are missed if Redis loses them before the first request."""
    with suppress(LedgerUnavailable):
        await run_in_threadpool(services.keys.exist)
