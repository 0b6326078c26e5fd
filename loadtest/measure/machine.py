"""What a result is worth nothing without: machine, versions, and what was promised to last."""
import os
import platform
import re
import subprocess
from contextlib import contextmanager
from datetime import datetime, timezone
from pathlib import Path

from .servers import CHECKOUT

PACKAGES = (
    "rabbitmq-server", "redis-server", "postgresql-15", "kore", "librabbitmq4", "libhiredis0.14", "libpq5", "libevent-2.1-7",
    "libjansson4", "wrk", "gcc",
)


def _output(*command):
    try:
        return subprocess.run(command, capture_output=True, text=True, timeout=30, cwd=CHECKOUT).stdout.strip()
    except (OSError, subprocess.TimeoutExpired):
        return ""


def _first(path, pattern):
    match = re.search(pattern, Path(path).read_text(), re.M)
    return match.group(1).strip() if match else ""


def commit():
    """The commit, with a mark when the work tree is not what it says."""
    name = _output("git", "rev-parse", "--short=10", "HEAD") or "unknown"
    changed = _output("git", "status", "--porcelain", "--untracked-files=no")
    return name + ("-changed" if changed else "")


def describe(build_dir):
    versions = {}
    for line in _output("dpkg-query", "--show", "--showformat", "${Package} ${Version}\n", *PACKAGES).splitlines():
        name, _, version = line.partition(" ")
        versions[name] = version
    options = _output("/usr/bin/meson", "introspect", "--buildoptions", str(build_dir))
    build = dict(re.findall(r'"name": "(buildtype|optimization|b_sanitize|b_ndebug)", "value": "([^"]*)"', options))
    return {
        "date": datetime.now(timezone.utc).isoformat(timespec="seconds"),
        "commit": commit(),
        "processor": _first("/proc/cpuinfo", r"^model name\s*:\s*(.*)$") or platform.machine(),
        "processors": len(os.sched_getaffinity(0)),
        "memory_mib": int(_first("/proc/meminfo", r"^MemTotal:\s*(\d+)")) // 1024,
        "kernel": platform.release(),
        "load_before": os.getloadavg()[0],
        "versions": versions,
        "build": build,
    }


@contextmanager
def kept_awake(build_dir):
    """No processor sleeps meanwhile; keep_awake.c says why."""
    process = subprocess.Popen([build_dir / "loadtest" / "keep_awake"], stdin=subprocess.DEVNULL)
    try:
        yield
        if process.poll() is not None:
            raise RuntimeError("the processors were not kept awake to the end of a run: keep_awake ended (its words above)")
    finally:
        process.kill()
        process.wait()


def durability(room):
    """As the servers say themselves."""
    settings = {}
    for name in ("fsync", "synchronous_commit", "full_page_writes", "wal_sync_method", "shared_buffers", "commit_delay"):
        settings[f"postgres {name}"] = room.query(f"SHOW {name}")[0][0]
    with room.redis() as connection:
        for name in ("appendonly", "appendfsync", "save"):
            settings[f"redis {name}"] = connection.config_get(name).get(name, "")
    # What our programs ask for; the wire's specification has it so, and the tests hold them to it.
    settings["amqp requests and answers"] = "transient, classic queues"
    settings["amqp events"] = "persistent, confirmed, from an outbox"
    return settings
