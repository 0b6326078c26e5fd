"""Network and mount namespaces: chaos runs in its own, where root may make interfaces, links and file systems that nobody else
sees and that vanish with it; some programs run in further ones, and all their packets pass packets.py.
"""
import fcntl
import json
import os
import socket
import struct
import subprocess
import sys
import threading
from pathlib import Path

PACKETS = Path(__file__).with_name("packets.py")
ENTERED = "AIRSHIP_CHAOS_NAMESPACES"  # in the environment of the run that is inside
MINE = ("unshare", "--net", "--mount", "--propagation", "private", "--")
SIOCETHTOOL = 0x8946
# Packets are read and sent as they are, so they must be whole: with checksums, and no longer than the interface allows.
OFFLOADS = (0x17, 0x1F, 0x24, 0x2C)  # ETHTOOL_STXCSUM, _STSO, _SGSO, _SGRO
LINK_ADDRESSES, FRONT_ADDRESSES = "198.18", "198.19"  # RFC 2544: for tests of networks


def enter():
    """Start again inside namespaces of our own; returns if that cannot be (not root, or not allowed)."""
    if ENTERED in os.environ or os.geteuid() != 0:
        return
    if subprocess.run([*MINE, "true"], stderr=subprocess.DEVNULL).returncode != 0:
        return
    os.environ[ENTERED] = "1"
    up = 'ip link set lo up && exec "$@"'
    os.execvp(MINE[0], [*MINE, "sh", "-c", up, "sh", sys.executable, *sys.argv])


def entered():
    return ENTERED in os.environ


def _ip(*arguments, pid=None):
    inside = [] if pid is None else ["nsenter", f"--net=/proc/{pid}/ns/net", "--"]
    subprocess.run([*inside, "ip", *map(str, arguments)], check=True)


def _without_offloads(interface):
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as sock:
        for command in OFFLOADS:
            value = bytearray(struct.pack("II", command, 0))
            address = (struct.pack("16s", interface.encode()) + struct.pack("P", _address_of(value))).ljust(40, b"\0")
            try:
                fcntl.ioctl(sock, SIOCETHTOOL, address)
            except OSError:
                pass  # it has not got that one


def _address_of(buffer):
    import ctypes

    return ctypes.addressof((ctypes.c_char * len(buffer)).from_buffer(buffer))


def _hardware_address(interface):
    shown = subprocess.run(["ip", "-json", "link", "show", interface], check=True, capture_output=True).stdout
    return json.loads(shown)[0]["address"]


class Namespace:
    """A network namespace for one program, with a way for its clients and probes that nothing breaks."""

    count = 0

    def __init__(self):
        Namespace.count += 1
        self.number = Namespace.count
        self.holder = subprocess.Popen(
            ["setpriv", "--pdeathsig", "KILL", "unshare", "--net", "sh", "-c", "ip link set lo up; echo; exec sleep infinity"],
            stdout=subprocess.PIPE,
        )
        self.holder.stdout.readline()  # from here on it is a namespace of its own
        self.prefix = ["nsenter", f"--net=/proc/{self.holder.pid}/ns/net", "--"]
        self.front_address = f"{FRONT_ADDRESSES}.{self.number}.2"
        here, there = f"front{self.number}", f"front{self.number}p"
        self._pair(here, there)
        for address, interface, pid in ((f"{FRONT_ADDRESSES}.{self.number}.1", here, None), (self.front_address, there, self.holder.pid)):
            _ip("address", "add", f"{address}/24", "dev", interface, pid=pid)
            _ip("link", "set", interface, "up", pid=pid)

    def _pair(self, here, there):
        _ip("link", "add", here, "type", "veth", "peer", "name", there)
        _ip("link", "set", there, "netns", self.holder.pid)

    def link(self, number):
        """Two veths, to be joined by packets.py: (the servers' address, the two ends to join)."""
        mine, outer, inner, servers = (f"{name}{number}" for name in ("prog", "progp", "servp", "serv"))
        _ip("link", "add", mine, "type", "veth", "peer", "name", outer)
        _ip("link", "add", servers, "type", "veth", "peer", "name", inner)
        for interface in (mine, servers):
            _without_offloads(interface)
        addresses = f"{LINK_ADDRESSES}.{number}.2", f"{LINK_ADDRESSES}.{number}.1"
        hardware = _hardware_address(mine), _hardware_address(servers)
        _ip("link", "set", mine, "netns", self.holder.pid)
        for interface in (outer, inner):
            _ip("link", "set", interface, "up", "arp", "off")  # ours is the kernel that would answer there
        for interface, pid, address, peer, peers_hardware in (
            (mine, self.holder.pid, addresses[0], addresses[1], hardware[1]),
            (servers, None, addresses[1], addresses[0], hardware[0]),
        ):
            _ip("address", "add", f"{address}/24", "dev", interface, pid=pid)
            _ip("link", "set", interface, "up", pid=pid)
            _ip("neighbour", "replace", peer, "lladdr", peers_hardware, "nud", "permanent", "dev", interface, pid=pid)
        return addresses[1], outer, inner

    def close(self):
        self.holder.kill()
        self.holder.wait()
        self.holder.stdout.close()


class Packets:
    """The process that joins the links."""

    def __init__(self, links):
        self.links = [name for name, _, _ in links]
        self._lock = threading.Lock()
        self._process = subprocess.Popen(
            [sys.executable, str(PACKETS), *(":".join(link) for link in links)],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
        )

    def set(self, name, **settings):
        with self._lock:
            self._process.stdin.write(json.dumps({"do": "set", "name": name, **settings}) + "\n")
            self._process.stdin.flush()
            self._process.stdout.readline()

    def heal(self):
        for name in self.links:
            self.set(name)

    def close(self):
        self._process.stdin.close()
        self._process.wait()
        self._process.stdout.close()
