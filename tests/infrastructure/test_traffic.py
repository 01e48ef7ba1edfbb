"""The traffic plan and its rendering for Envoy, as pure data."""

from __future__ import annotations

import json
from pathlib import Path

from components.local import envoy, front_door
from components.traffic import HeaderPin, ReleaseTraffic, Role, TrafficPlan

ADDRESSES = {"stable": "127.0.0.1:1001", "canary": "127.0.0.1:1002", "next": "127.0.0.1:1003"}
PLAN = TrafficPlan(
    (
        ReleaseTraffic("stable", weight=90),
        ReleaseTraffic("canary", weight=10, pin=HeaderPin("x-slipway-release", "canary")),
        ReleaseTraffic("next", role=Role.SHADOW, mirror_percent=2.5),
        ReleaseTraffic("old", role=Role.DRAINING),
    )
)


def test_pins_come_first_then_mirrored_posts_then_the_split() -> None:
    """Envoy takes the first route that matches."""
    pin, posts, rest = envoy.routes(PLAN, ADDRESSES)["virtual_hosts"][0]["routes"]
    assert pin["match"]["headers"][0]["name"] == "x-slipway-release"
    assert pin["route"]["cluster"] == "canary@127.0.0.1:1002"
    assert posts["match"]["headers"][0] == {"name": ":method", "string_match": {"exact": "POST"}}
    shares = [(share["name"], share["weight"]) for share in rest["route"]["weighted_clusters"]["clusters"]]
    assert shares == [("stable@127.0.0.1:1001", 90), ("canary@127.0.0.1:1002", 10)]


def test_only_unpinned_posts_are_mirrored_and_at_the_configured_share() -> None:
    """25,000 of a million is 2.5 %."""
    pin, posts, rest = envoy.routes(PLAN, ADDRESSES)["virtual_hosts"][0]["routes"]
    (mirror,) = posts["route"]["request_mirror_policies"]
    assert mirror["cluster"] == "next@127.0.0.1:1003"
    assert mirror["runtime_fraction"]["default_value"] == {"numerator": 25_000, "denominator": "MILLION"}
    assert "request_mirror_policies" not in pin["route"]
    assert "request_mirror_policies" not in rest["route"]


def test_no_route_cuts_a_stream_by_time() -> None:
    """Envoy's own default ends every answer after 15 s."""
    for route in envoy.routes(PLAN, ADDRESSES)["virtual_hosts"][0]["routes"]:
        assert route["route"]["timeout"] == "0s"
    listener = json.loads(_bootstrap())["static_resources"]["listeners"][0]
    manager = listener["filter_chains"][0]["filters"][0]["typed_config"]
    assert int(manager["stream_idle_timeout"].removesuffix("s")) >= 3_600


def test_only_what_never_reached_an_api_is_sent_again() -> None:
    """A retried POST that was received would start a second run."""
    allowed = {"connect-failure", "refused-stream", "reset-before-request"}
    for route in envoy.routes(PLAN, ADDRESSES)["virtual_hosts"][0]["routes"]:
        assert set(route["route"]["retry_policy"]["retry_on"].split(",")) <= allowed


def test_a_draining_release_is_in_no_route() -> None:
    assert "old" not in json.dumps(envoy.routes(PLAN, ADDRESSES))


def test_a_release_of_weight_0_keeps_its_place() -> None:
    """Raising it again is one route write."""
    plan = TrafficPlan((ReleaseTraffic("stable", weight=100), ReleaseTraffic("canary", weight=0)))
    (route,) = envoy.routes(plan, ADDRESSES)["virtual_hosts"][0]["routes"]
    assert [share["weight"] for share in route["route"]["weighted_clusters"]["clusters"]] == [100, 0]


def test_a_moved_api_is_another_cluster_and_the_old_one_can_stay_beside_it() -> None:
    """What is answered on the old one ends undisturbed."""
    before = envoy.clusters({"stable": "127.0.0.1:1001"})
    both = envoy.clusters({"stable": "127.0.0.1:2001"}, more=before)
    assert [cluster["name"] for cluster in both] == ["stable@127.0.0.1:2001", "stable@127.0.0.1:1001"]
    assert envoy.clusters({"stable": "127.0.0.1:1001"}, more=before) == before


def test_a_plan_survives_the_way_through_pulumi() -> None:
    """Resources hold plain JSON; nothing of the plan may be lost there."""
    assert front_door.plan_of(json.loads(json.dumps(front_door.plain(PLAN)))) == PLAN


def test_equal_states_have_equal_versions_and_others_do_not() -> None:
    """The version is how Pulumi sees whether the routes are still its own."""
    plan = {"plan": front_door.plain(PLAN)}
    assert envoy.version_of(plan, ADDRESSES) == envoy.version_of(dict(plan), dict(reversed(ADDRESSES.items())))
    assert envoy.version_of(plan, ADDRESSES) != envoy.version_of(plan, {**ADDRESSES, "stable": "127.0.0.1:9"})


def test_the_admin_interface_is_a_private_socket() -> None:
    """It can end Envoy and shows its configuration: never a port."""
    pipe = json.loads(_bootstrap())["admin"]["address"]["pipe"]
    assert pipe == {"path": "/stack/envoy.sock", "mode": 0o600}


def _bootstrap() -> str:
    return envoy.bootstrap(
        host="127.0.0.1", port=8080, folder=Path("/stack/envoy"), admin_socket=Path("/stack/envoy.sock")
    )
