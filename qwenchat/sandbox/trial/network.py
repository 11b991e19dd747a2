"""Attempts on the network, and on sockets of this machine."""

from __future__ import annotations

import socket

from qwenchat.sandbox.trial.registry import Targets, attempt, unless


@attempt
def connect_by_tcp(t: Targets) -> None:
    socket.create_connection(("127.0.0.1", t["tcp"]), 2).close()


@attempt
def connect_by_tcp_of_ipv6(t: Targets) -> None:
    with socket.socket(socket.AF_INET6) as own:
        own.settimeout(2)
        own.connect(("::1", t["tcp6"]))


@attempt
def send_by_udp(t: Targets) -> None:
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as own:
        own.settimeout(2)
        own.sendto(b"x", ("127.0.0.1", t["udp"]))
        own.recv(1)


@attempt
def connect_to_a_socket_file(t: Targets) -> None:
    with socket.socket(socket.AF_UNIX) as own:
        own.connect(t["socket"])


@attempt
def connect_to_an_abstract_socket(t: Targets) -> None:
    with socket.socket(socket.AF_UNIX) as own:
        own.connect("\0" + t["abstract"])


@attempt
def ask_for_the_machines_routes(t: Targets) -> None:
    with socket.socket(socket.AF_NETLINK, socket.SOCK_RAW, 0) as own:
        own.bind((0, 0))
    with open("/proc/net/dev") as file:
        unless(len(file.readlines()) > 3, "there is no other interface")
