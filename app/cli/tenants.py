"""`slipway tenants`: delete."""

from __future__ import annotations

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import asdict
from typing import Annotated

import typer

from app.cli import render
from app.cli.session import JsonOption, Session, TenantArgument, YesOption, confirm, perform
from app.infra.errors import Unavailable
from app.infra.ids import TenantId
from app.infra.settings import Settings
from app.runs.administration.removal import Removed
from app.runs.administration.tenant_removal import Forget

app = typer.Typer(help="Tenants: delete.", no_args_is_help=True)


@app.callback()
def tenants() -> None:
    """Tenants: delete."""


@app.command()
def delete(
    tenant: TenantArgument,
    keep_memories: Annotated[
        bool, typer.Option("--keep-memories", help="Leave long-term memories alone, for a store that is gone.")
    ] = False,
    yes: YesOption = False,
    json: JsonOption = False,
) -> None:
    """Delete a tenant: its API keys, threads, runs, crons and long-term memories. It cannot be undone."""
    confirm(f"Delete everything of tenant {tenant}, its API keys too, for good?", yes=yes)
    progress = render.Progress()

    async def work(session: Session) -> Removed:
        async with _memories(session.settings, keep=keep_memories) as forget:
            try:
                return await session.administration.delete_tenant(TenantId(tenant), forget=forget, told=progress)
            finally:
                progress.end()

    removed = perform(work)
    if json:
        render.as_json(asdict(removed))
        return
    counts = ", ".join(f"{name.replace('_', ' ')}: {count}" for name, count in asdict(removed).items())
    typer.echo(f"deleted tenant {tenant}; {counts}")


@asynccontextmanager
async def _memories(settings: Settings, *, keep: bool) -> AsyncIterator[Forget | None]:
    """What deletes long-term memories; None where there is no store, or where they are to be left alone."""
    if settings.tools.qdrant_url is None or keep:
        why = "they are kept, as --keep-memories says" if keep else "there is no store (QDRANT_URL is not set)"
        typer.echo(f"long-term memories: {why}", err=True)
        yield None
        return
    # Imported here: the clients of the store take a second to load.
    from app.memory.embeddings import open_embeddings
    from app.memory.memories import Memories
    from app.memory.store import open_store

    embeddings = open_embeddings(settings)
    store = open_store(settings, embeddings)
    try:
        memories = Memories(store)

        async def forget(tenant: TenantId) -> int:
            try:
                return await memories.delete_tenant(tenant)
            except Unavailable as error:
                raise Unavailable(
                    f"{error.text}, so long-term memories cannot be deleted",
                    fix="mend that and repeat the command, it goes on where it stopped (--keep-memories leaves them)",
                ) from error

        yield forget
    finally:
        if store is not None:
            await store.close()
        await embeddings.close()
