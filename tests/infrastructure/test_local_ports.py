"""Ports: chosen once, kept, free."""

from __future__ import annotations

import socket

from components.local import ports


def test_known_names_keep_their_ports_and_new_ones_get_others() -> None:
    """A URL handed out stays true when the stack grows."""
    first = ports.choose(["a", "b"])
    grown = ports.choose(["a", "b", "c"], first)
    assert {name: grown[name] for name in ("a", "b")} == first
    assert grown["c"] not in first.values()


def test_names_that_go_free_their_ports() -> None:
    assert ports.choose(["a"], {"a": 20_001, "b": 20_002}) == {"a": 20_001}


def test_chosen_ports_are_free_different_and_out_of_the_ephemeral_range() -> None:
    """An outgoing connection could hold one of that range while a program restarts."""
    chosen = ports.choose([str(number) for number in range(100)])
    assert len(set(chosen.values())) == 100
    assert all(ports.LOW <= port <= ports.HIGH for port in chosen.values())


def test_a_port_somebody_listens_on_is_not_free() -> None:
    with socket.socket() as holder:
        holder.bind(("127.0.0.1", 0))
        holder.listen()
        assert not ports.free(holder.getsockname()[1])
