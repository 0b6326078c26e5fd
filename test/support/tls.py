"""Certificates of an authority of the tests' own, and a TLS terminator in front of a real server."""
import os
import select
import socket
import ssl
import struct
import subprocess
import warnings
from urllib.parse import urlencode, urlsplit, urlunsplit

from .backing import host_and_port
from .clock import ANSWER_S, BOOT_S
from .fake import FakeServer, Gone

HERE = "DNS:localhost,IP:127.0.0.1"
ELSEWHERE = "DNS:elsewhere.example.com"
DAYS, EXPIRED_DAYS = 2, -1
_CHUNK = 65536
_KEY = ("-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:prime256v1", "-nodes")
_SSL_REQUEST = struct.pack(">II", 8, 80877103)


class Authority:
    """A certification authority; `path` is what its clients trust."""

    def __init__(self, folder, name):
        self._folder = folder
        self._name = name
        self.path = folder / f"{name}.pem"
        self._key = folder / f"{name}.key"
        self._openssl("req", "-x509", *_KEY, "-days", str(DAYS), "-subj", f"/CN={name}", "-out", self.path, "-keyout", self._key,
                      "-addext", "keyUsage=critical,keyCertSign,cRLSign")  # fmt: skip

    def issue(self, name, hosts, days=DAYS):
        """(certificate, key) for hosts, as subjectAltName has them."""
        base = self._folder / f"{self._name}-{name}"
        paths = {suffix: base.with_suffix(suffix) for suffix in (".pem", ".key", ".csr", ".ext")}
        paths[".ext"].write_text(f"subjectAltName={hosts}\nextendedKeyUsage=serverAuth\nbasicConstraints=CA:FALSE\n")
        self._openssl("req", "-new", *_KEY, "-subj", f"/CN={name}", "-out", paths[".csr"], "-keyout", paths[".key"])
        self._openssl("x509", "-req", "-in", paths[".csr"], "-CA", self.path, "-CAkey", self._key, "-CAcreateserial",
                      "-days", str(days), "-extfile", paths[".ext"], "-out", paths[".pem"])  # fmt: skip
        return paths[".pem"], paths[".key"]

    @staticmethod
    def _openssl(*arguments):
        command = ["openssl", *map(str, arguments)]
        done = subprocess.run(command, stdin=subprocess.DEVNULL, capture_output=True, text=True, timeout=BOOT_S)
        assert done.returncode == 0, f"openssl {arguments[0]}: {done.stderr}"


def server_context(certificate, newest=ssl.TLSVersion.MAXIMUM_SUPPORTED):
    """How a server shows itself; None in its place: it speaks no TLS."""
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(*certificate)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", DeprecationWarning)  # that TLS 1.1 is old is the point of asking for it
        if newest == ssl.TLSVersion.TLSv1_1:
            context.set_ciphers("ALL:@SECLEVEL=0")
            context.minimum_version = ssl.TLSVersion.TLSv1
        context.maximum_version = newest
    return context


class TlsTerminator(FakeServer):
    """Ends TLS before a real server.  A new `context` is for the connections that come."""

    def __init__(self, uri, context):
        """`uri` is the real server's."""
        self._address = host_and_port(uri)
        self._is_postgres = urlsplit(uri).scheme.startswith("postgres")
        self._uri = uri
        self.context = context
        self.last_word = b""  # to whoever does not shake hands
        self.versions = []  # of each tunnel that came about
        super().__init__()

    def uri(self, host="127.0.0.1", tls=True, **options):
        """The real server's by way of this port; `options` behind the question mark."""
        parts = urlsplit(self._uri)
        scheme = "amqps" if tls and not self._is_postgres else parts.scheme
        login = parts.netloc.rpartition("@")[0]
        query = urlencode(options, safe="/")
        return urlunsplit(parts._replace(scheme=scheme, netloc=f"{login}@{host}:{self.port}", query=query))

    def serve(self, link):
        link.socket.settimeout(ANSWER_S)
        context = self.context
        if self._is_postgres and context is not None:
            if link.take(len(_SSL_REQUEST)) != _SSL_REQUEST:
                raise Gone
            link.send(b"S")
        if context is not None:
            self._shake_hands(link, context)
        with socket.create_connection(self._address, ANSWER_S) as server:
            self._carry(link.socket, server)

    def _shake_hands(self, link, context):
        try:
            link.socket = context.wrap_socket(link.socket, server_side=True, do_handshake_on_connect=False)
            link.socket.do_handshake()
        except OSError:
            self._say_last_word(link)
            raise Gone from None
        self.versions.append(link.socket.version())

    def _say_last_word(self, link):
        """Past the tunnel that never was."""
        if self.last_word:
            with socket.socket(fileno=os.dup(link.socket.fileno())) as plain:
                plain.sendall(self.last_word)

    @staticmethod
    def _carry(client, server):
        """Until one of the two has had enough.  One thread: a TLS connection must not be read and written at once."""
        other = {client: server, server: client}
        try:
            while True:
                buffered = isinstance(client, ssl.SSLSocket) and client.pending() > 0
                for one in [client] if buffered else select.select([client, server], [], [])[0]:
                    data = one.recv(_CHUNK)
                    if not data:
                        return
                    other[one].sendall(data)
        except (OSError, ValueError):  # ValueError: the test has closed it
            return
