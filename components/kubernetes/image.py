"""The service's image, built by BuildKit from this repository's Dockerfile and pushed.

A preview builds nothing. What comes out is the reference by digest, so that pods run what was built, whatever becomes
of the tag. Whoever runs `pulumi up` must be logged in to the registry (`docker login`); no credential is in the state.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path

import pulumi
import pulumi_docker_build as docker_build

_CACHE_TAG = "buildcache"


def built_image(
    name: str,
    *,
    folder: Path,
    repository: str,
    tag: str,
    platforms: Sequence[str] = (),
    cache: bool = False,
    arguments: Mapping[str, str] | None = None,
) -> pulumi.Output[str]:
    """Reference by digest of the image of `folder`, pushed as `repository:tag`; unknown while it is previewed.

    `cache` keeps the layers beside the image in the registry. Provenance is what the builder attests by default.
    """
    kept = f"{repository}:{_CACHE_TAG}"
    made = docker_build.Image(
        name,
        context=docker_build.BuildContextArgs(location=str(folder)),
        dockerfile=docker_build.DockerfileArgs(location=str(folder / "Dockerfile")),
        build_on_preview=False,
        push=True,
        tags=[f"{repository}:{tag}"],
        platforms=[docker_build.Platform(platform) for platform in platforms] or None,
        build_args=dict(arguments) if arguments else None,
        cache_from=[docker_build.CacheFromArgs(registry=docker_build.CacheFromRegistryArgs(ref=kept))]
        if cache
        else None,
        cache_to=[
            docker_build.CacheToArgs(
                registry=docker_build.CacheToRegistryArgs(ref=kept, mode=docker_build.CacheMode.MAX)
            )
        ]
        if cache
        else None,
    )
    return made.ref
