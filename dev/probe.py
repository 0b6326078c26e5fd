"""Is a server there that takes this URI?  Is this port free?  One clear line, and exit 2, where not.

    probe.py amqp URI           log in and open the virtual host
    probe.py redis URI          authenticate, select the database, PING
    probe.py postgres URI       only that it is a URI, and that something listens there
    probe.py listen NAME ADDRESS PORT...    the ports can be listened on; NAME is the setting to complain about
"""
import errno
import os
import socket
import ssl
import struct
import sys
from urllib.parse import unquote, urlsplit

EXIT_REFUSED = 2
CONNECT_TIMEOUT_S = 5
ANSWER_TIMEOUT_S = 10
PORTS = {"amqp": 5672, "amqps": 5671, "redis": 6379, "postgresql": 5432, "postgres": 5432}


class Refused(Exception):
    """The line to show."""


class Location:
    """What a URI names; never shown whole, for it may hold a password."""

    def __init__(self, setting, uri, schemes, example):
        wanted = f"it should look like {example}"
        try:
            parts = urlsplit(uri)
            self.port = parts.port
        except ValueError:
            raise Refused(f"{setting} cannot be read; {wanted}") from None
        if parts.scheme not in schemes:
            raise Refused(f"{setting} does not begin with {' or '.join(s + '://' for s in schemes)}; {wanted}")
        self.setting = setting
        self.scheme = parts.scheme
        self.host = unquote(parts.hostname or "localhost")
        self.port = self.port or PORTS[parts.scheme]
        self.user = None if parts.username is None else unquote(parts.username)
        self.password = None if parts.password is None else unquote(parts.password)
        self.path = parts.path

    def __str__(self):
        return f"{self.host}:{self.port}"

    def connect(self):
        try:
            connection = socket.create_connection((self.host, self.port), CONNECT_TIMEOUT_S)
        except OSError as error:
            raise Refused(f"{self.setting}: nothing answers at {self} ({error.strerror or error}); start that server, "
                          f"or unset {self.setting} to get a private one") from None
        connection.settimeout(ANSWER_TIMEOUT_S)
        return connection


def read_exactly(connection, size):
    data = b""
    while len(data) < size:
        more = connection.recv(size - len(data))
        if not more:
            raise EOFError
        data += more
    return data


# ---- AMQP 0-9-1 ------------------------------------------------------------------------------------------------------

CONNECTION_START, CONNECTION_TUNE, CONNECTION_OPEN_OK, CONNECTION_CLOSE = (10, 10), (10, 30), (10, 41), (10, 50)
FRAME_METHOD, FRAME_END = 1, 0xCE


def amqp_method(class_and_method, arguments):
    payload = struct.pack(">HH", *class_and_method) + arguments
    return struct.pack(">BHI", FRAME_METHOD, 0, len(payload)) + payload + bytes([FRAME_END])


def amqp_read_method(connection):
    kind, _, size = struct.unpack(">BHI", read_exactly(connection, 7))
    payload = read_exactly(connection, size + 1)
    if kind != FRAME_METHOD:
        raise EOFError
    return struct.unpack(">HH", payload[:4]), payload[4:-1]


def short_string(text):
    data = text.encode()
    if len(data) > 255:
        raise Refused("AMQP_URI names a virtual host of more than 255 bytes")
    return bytes([len(data)]) + data


def long_string(data):
    return struct.pack(">I", len(data)) + data


def amqp_expect(connection, wanted):
    method, arguments = amqp_read_method(connection)
    if method == CONNECTION_CLOSE:
        code, size = struct.unpack(">HB", arguments[:3])
        raise Refused(f"{arguments[3:3 + size].decode('utf-8', 'replace')} ({code})")
    if method != wanted:
        raise EOFError
    return arguments


def probe_amqp(uri):
    place = Location("AMQP_URI", uri, ("amqp", "amqps"), "amqp://guest:guest@localhost:5672/")
    vhost = unquote(place.path[1:]) or "/"
    user = "guest" if place.user is None else place.user
    password = "guest" if place.password is None else place.password
    connection = place.connect()
    stage = "it does not speak AMQP 0-9-1"
    try:
        if place.scheme == "amqps":
            # Whether its certificate is good is for the services to judge, by their own settings.
            context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
            context.check_hostname, context.verify_mode = False, ssl.CERT_NONE
            connection = context.wrap_socket(connection, server_hostname=place.host)
        connection.sendall(b"AMQP\0\0\x09\x01")
        amqp_expect(connection, CONNECTION_START)
        stage = f"it does not let {user!r} in; are the user and the password right?"
        capabilities = b"\x0ccapabilitiesF" + long_string(b"\x1cauthentication_failure_closet\x01")
        connection.sendall(amqp_method((10, 11), long_string(capabilities) + short_string("PLAIN")
                                       + long_string(f"\0{user}\0{password}".encode()) + short_string("en_US")))
        tune = amqp_expect(connection, CONNECTION_TUNE)
        stage = f"it does not open the virtual host {vhost!r}; is it there, and {user!r} allowed in it?"
        connection.sendall(amqp_method((10, 31), tune[:8])
                           + amqp_method((10, 40), short_string(vhost) + short_string("") + b"\0"))
        amqp_expect(connection, CONNECTION_OPEN_OK)
        connection.sendall(amqp_method(CONNECTION_CLOSE, struct.pack(">H", 200) + short_string("") + b"\0\0\0\0"))
    except Refused as refused:
        raise Refused(f"AMQP_URI: the server at {place} answers: {refused}") from None
    except (EOFError, OSError, struct.error):
        raise Refused(f"AMQP_URI: something answers at {place}, but {stage}") from None
    finally:
        connection.close()


# ---- Redis -----------------------------------------------------------------------------------------------------------

def probe_redis(uri):
    place = Location("REDIS_URI", uri, ("redis",), "redis://localhost:6379/0")
    database = place.path[1:].split("/")[0]
    commands = []
    if place.password:
        commands.append([b"AUTH", *([place.user.encode()] if place.user else []), place.password.encode()])
    if database.isdigit():
        commands.append([b"SELECT", database.encode()])
    commands.append([b"PING"])
    connection = place.connect()
    try:
        for command in commands:
            connection.sendall(b"*%d\r\n" % len(command) + b"".join(b"$%d\r\n%s\r\n" % (len(p), p) for p in command))
            answer = b""
            while not answer.endswith(b"\r\n"):
                answer += read_exactly(connection, 1)
            if answer.startswith(b"-LOADING"):
                return  # it is there; the services wait for it
            if not answer.startswith(b"+"):
                said = answer.strip(b"-\r\n").decode("utf-8", "replace")
                raise Refused(f"REDIS_URI: the server at {place} answers {command[0].decode()} with: {said}")
    except (EOFError, OSError):
        raise Refused(f"REDIS_URI: something answers at {place}, but it is no Redis") from None
    finally:
        connection.close()


# ---- the rest --------------------------------------------------------------------------------------------------------

def probe_postgres(uri):
    # All else that such a URI may hold (several hosts, sockets, files) is libpq's to read, when the database is migrated.
    example = "postgresql://user:password@localhost:5432/orders"
    if not uri.startswith(("postgresql://", "postgres://")):
        raise Refused(f"POSTGRES_URI does not begin with postgresql:// or postgres://; it should look like {example}")
    if "?" not in uri and "," not in uri:
        place = Location("POSTGRES_URI", uri, ("postgresql", "postgres"), example)
        if not place.host.startswith("/"):
            place.connect().close()


def holder_of(port):
    """' by PROGRAM (pid N)', where that can be seen."""
    inodes = set()
    for table in ("/proc/net/tcp", "/proc/net/tcp6"):
        try:
            with open(table) as lines:
                rows = [line.split() for line in lines][1:]
        except OSError:
            continue
        inodes |= {f"socket:[{row[9]}]" for row in rows if row[3] == "0A" and int(row[1].split(":")[1], 16) == port}
    for pid in filter(str.isdigit, os.listdir("/proc")):
        try:
            for fd in os.listdir(f"/proc/{pid}/fd"):
                if os.readlink(f"/proc/{pid}/fd/{fd}") in inodes:
                    with open(f"/proc/{pid}/comm") as comm:
                        return f" by {comm.read().strip()} (pid {pid})"
        except OSError:
            continue
    return ""


def probe_listen(setting, address, *ports):
    for port in map(int, ports):
        try:
            family, kind, _, _, where = socket.getaddrinfo(address, port, type=socket.SOCK_STREAM,
                                                           flags=socket.AI_PASSIVE)[0]
            with socket.socket(family, kind) as listener:
                listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
                listener.bind(where)
                listener.listen(1)
        except socket.gaierror as error:
            raise Refused(f"BIND_ADDRESS {address!r} is no address: {error.strerror}") from None
        except OSError as error:
            if error.errno == errno.EADDRINUSE:
                raise Refused(f"port {port} on {address} is in use{holder_of(port)}; "
                              f"stop that program, or choose another port: {setting}=<port>") from None
            if error.errno == errno.EADDRNOTAVAIL:
                raise Refused(f"BIND_ADDRESS {address} is no address of this machine") from None
            raise Refused(f"cannot listen on port {port} of {address}: {error.strerror}") from None


def main():
    probes = {"amqp": probe_amqp, "redis": probe_redis, "postgres": probe_postgres, "listen": probe_listen}
    try:
        probes[sys.argv[1]](*sys.argv[2:])
    except Refused as refused:
        print(refused)
        sys.exit(EXIT_REFUSED)


if __name__ == "__main__":
    main()
