"""The same shop written for others, measured beside ours: how each is come by, started and set."""
import subprocess
from dataclasses import dataclass
from pathlib import Path

CHECKOUT = Path(__file__).resolve().parents[2]
NAMEKO_SHOP = CHECKOUT / "test" / "interop" / "shop" / "serve.py"
NAMEKO_PYTHON = CHECKOUT / ".venv-interop" / "bin" / "python"
MOLECULER_SHOP = CHECKOUT / "loadtest" / "moleculer" / "serve.js"
INSTALL_TIMEOUT_S = 600
KILL_AFTER_S = 5

LOADS = ("get_product", "post_order", "get_order", "mixed")  # what a peer is asked


@dataclass(frozen=True)
class Peer:
    """`name` stands before each of its measurements: "nameko get_product"."""

    name: str
    title: str
    install: str  # for bash, in the checkout: makes it where it is missing; fails with words of its own where it cannot
    version: str  # for bash: a line a version, "<what> <version>"
    command: tuple  # followed by the program's name
    settings: dict
    has_pages: bool  # GET /orders?limit=


NAMEKO = Peer(
    "nameko",
    "real Nameko",
    '. test/interop/environment.sh && interop_python "${NAMEKO_VERSIONS[0]}"',
    'echo "nameko $(sed -n s/^nameko==//p test/interop/requirements.txt)"',
    (NAMEKO_PYTHON, NAMEKO_SHOP),
    {"MAX_WORKERS": "100", "PREFETCH": "100", "POSTGRES_CONNECTIONS": "20"},
    False,
)
# What it is set to, and why: loadtest/moleculer/README.md.
MOLECULER = Peer(
    "moleculer",
    "tuned Moleculer",
    ". loadtest/moleculer/environment.sh && moleculer_install",
    "cd loadtest/moleculer && node -p \"'moleculer ' + require('./node_modules/moleculer/package.json').version + '\\nnode ' + process.versions.node\"",
    ("node", "--max-semi-space-size=32", MOLECULER_SHOP),
    {"NODE_ENV": "production", "NODE_OPTIONS": "", "PREFETCH": "100", "POSTGRES_CONNECTIONS": "20"},
    True,
)
PEERS = {peer.name: peer for peer in (NAMEKO, MOLECULER)}


def _bash(command):
    """What it writes to stdout; None when it fails.  Its words on stderr are the reader's."""
    result = subprocess.run(
        ["timeout", f"--kill-after={KILL_AFTER_S}", str(INSTALL_TIMEOUT_S), "bash", "-c", command],
        cwd=CHECKOUT,
        stdin=subprocess.DEVNULL,
        stdout=subprocess.PIPE,
        text=True,
    )
    return result.stdout if result.returncode == 0 else None


def install(peer):
    """Is it there to be started?"""
    return _bash(peer.install) is not None


def versions(peer):
    return dict(line.split(" ", 1) for line in (_bash(peer.version) or "").splitlines())
