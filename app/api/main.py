"""The api process's application: its routes, and the parts that its lifespan opens and closes."""

from __future__ import annotations

import contextlib
from collections.abc import AsyncIterator

from fastapi import FastAPI

from app.api import problems
from app.api.dependencies import Api
from app.api.memories import LazyMemories
from app.api.middleware import SILENT, RequestScope
from app.api.probes import readiness_checks
from app.api.routers import admin, chat, crons, health, memories, runs, stream, threads
from app.infra.auth import Authenticator
from app.infra.keys import Keys
from app.infra.redis import open_redis
from app.infra.settings import Settings
from app.infra.version import VERSION
from app.runs.administration.removal import finishing
from app.runs.hub import hub
from app.runs.ledger import RunLedger
from app.runs.schedule.crons import Crons
from app.runs.schedule.later import Later
from app.runs.schedule.scheduler import scheduling
from app.workflows.names import graph_names


def create_app(settings: Settings) -> FastAPI:
    """The application; opens nothing before it is started. Raises `ConfigurationError` for unusable graphs."""
    graphs = graph_names(settings.service.langgraph_config, default=settings.service.default_graph)

    @contextlib.asynccontextmanager
    async def lifespan(app: FastAPI) -> AsyncIterator[None]:
        redis = open_redis(settings.redis)
        keys = Keys(settings.redis.key_prefix)
        async with contextlib.AsyncExitStack() as stack:
            stack.push_async_callback(redis.aclose)
            app.state.readiness = await stack.enter_async_context(readiness_checks(settings, redis))
            memories_of_users = LazyMemories(settings)
            stack.push_async_callback(memories_of_users.close)
            crons_of_all = Crons(redis, keys, settings.runs, settings.release, graphs)
            scheduler = await stack.enter_async_context(
                scheduling(redis, keys, Later(redis, keys, settings.release), crons_of_all)
            )
            await stack.enter_async_context(finishing(redis, keys))
            app.state.api = Api(
                settings=settings,
                redis=redis,
                keys=keys,
                # Keys of callers are the same for all releases, a shadow one too: they lie under no prefix.
                authenticator=Authenticator(redis, Keys()),
                ledger=RunLedger(redis, keys, settings.runs, settings.release),
                hub=await stack.enter_async_context(hub(redis, keys)),
                memories=memories_of_users,
                crons=crons_of_all,
                scheduler=scheduler,
                graphs=graphs,
            )
            yield

    app = FastAPI(
        title="Slipway agent service",
        version=VERSION,
        summary="Runs of LangGraph agents that survive crashes, with streams that can be resumed.",
        lifespan=lifespan,
        telemetry={
            "tracing": settings.telemetry.otel_exporter_otlp_endpoint is not None,
            "metrics": settings.telemetry.otel_exporter_otlp_endpoint is not None,
            "logs": False,
            "operation_spans": False,
            "exclude": lambda scope: scope["path"] in SILENT,
        },
        responses={500: {"model": problems.Problem}},
    )
    app.add_middleware(RequestScope, max_body_bytes=settings.service.max_body_bytes)
    problems.install(app)
    for router in (
        chat.router,
        stream.router,
        runs.router,
        threads.router,
        crons.router,
        memories.router,
        admin.router,
        health.router,
    ):
        app.include_router(router)
    return app
