"""Several sessions at once share the tests between them (--share): each takes the next file that nobody has taken yet.

A file's tests stay together and in their order.  Each session has servers, ports and rooms of its own.
"""
import itertools
import os
from pathlib import Path

# Those that take longest are taken first, so that the sessions end together.  What is missing here comes behind them.
LONGEST_FIRST = (
    "test_hostile_postgres",
    "test_hostile_broker",
    "test_backingsvcs",
    "test_migrations",
    "test_dev_run",
    "test_security",
    "test_hostile_redis",
    "test_tls",
    "test_http_peers",
    "test_resources",
    "test_reconnect",
    "test_faults",
    "test_instances",
    "test_alarms",
    "test_outbox",
    "test_drain",
)


def pytest_addoption(parser):
    parser.addoption("--share", metavar="FOLDER", help="share the tests with the sessions that name the same folder")


def _faults(item):
    return item.get_closest_marker("faults") is not None


def _file(item):
    return item.path.stem


def _order(item):
    file = _file(item)
    return _faults(item), LONGEST_FIRST.index(file) if file in LONGEST_FIRST else len(LONGEST_FIRST), file


def _is_mine(folder, what):
    """Nobody was here before."""
    try:
        os.close(os.open(folder / what, os.O_CREAT | os.O_EXCL | os.O_WRONLY))
        return True
    except FileExistsError:
        return False


def _taken(items, folder):
    """The tests that this session gets; a file is taken when its first one is asked for."""
    for (faults, _, file), group in itertools.groupby(sorted(items, key=_order), key=_order):
        if _is_mine(folder, f"{file}.faults" if faults else file):
            yield from group


def pytest_runtestloop(session):
    """As pytest's own, but for where the tests come from."""
    folder = session.config.getoption("--share")
    if folder is None or session.testsfailed or session.config.option.collectonly:
        return None  # pytest's own
    (Path(folder) / f"{os.getpid()}.collected").write_text(str(len(session.items)))
    items = _taken(session.items, Path(folder))
    item = next(items, None)
    while item is not None:
        following = next(items, None)  # tells which fixtures stay
        item.config.hook.pytest_runtest_protocol(item=item, nextitem=following)
        if session.shouldfail:
            raise session.Failed(session.shouldfail)
        if session.shouldstop:
            raise session.Interrupted(session.shouldstop)
        item = following
    return True
