"""Black-box tests: real servers, real programs, nothing known of their insides.

    /usr/bin/python3 -m pytest test            BUILD_DIR names the build folder, TIME_SCALE stretches the deadlines
"""
import os
import signal
import sys
from pathlib import Path

import pytest

sys.path.insert(0, str(Path(__file__).resolve().parent))

from support import program  # noqa: E402
from support.backing import Servers  # noqa: E402
from support.ports import server_ports  # noqa: E402
from support.shards import pytest_addoption, pytest_runtestloop  # noqa: E402, F401
from support.shop import Shop  # noqa: E402


def pytest_configure():
    """Asked to leave, the session still stops what it has started."""
    # A shell that starts the tests in the background has them ignore Ctrl-C, and they would hand that on to every program.
    signal.signal(signal.SIGINT, signal.default_int_handler)
    signal.signal(signal.SIGHUP, signal.SIG_DFL)  # nohup has it ignored, and the programs would inherit that
    signal.signal(signal.SIGTERM, lambda *_: signal.raise_signal(signal.SIGINT))
    os.environ["SERVER_PORTS"] = server_ports()  # for those that a test starts itself


def pytest_collection_modifyitems(items):
    """What kills and stalls things runs last: it slows down whatever else is there."""
    items.sort(key=lambda item: item.get_closest_marker("faults") is not None)


def or_end_the_session(start):
    """What all tests need does not start: said once, not once a test."""
    try:
        start()
    except AssertionError as error:
        pytest.exit(f"cannot test: {error}", 1)


@pytest.fixture(scope="session")
def servers():
    servers = Servers()
    try:
        or_end_the_session(servers.start)
        yield servers
    finally:
        program.stop_all()
        servers.stop()


@pytest.fixture(scope="session")
def directory(tmp_path_factory):
    return tmp_path_factory.mktemp("programs")


@pytest.fixture(scope="session")
def shop(servers, directory):
    """One of each, for all tests that leave the programs and the servers in peace."""
    shop = Shop(servers, directory)
    for name in program.PATHS:
        if program.is_built(name):  # a program that is missing fails its own tests, not those of the others
            shop.add(name).start()
    for one in shop.programs:
        or_end_the_session(one.wait_ready)
    yield shop
    shop.close()


@pytest.fixture(scope="module")
def make_shop(servers, directory):
    """Shops in rooms of their own, stopped behind the module's last test."""
    made = []

    def make(**options):
        shop = Shop(servers, directory, **options)
        made.append(shop)
        return shop

    try:
        yield make
    finally:
        failures = []
        for shop in made:
            try:
                shop.close()
            except AssertionError as error:
                failures.append(str(error))
        assert not failures, "\n".join(failures)


@pytest.fixture(scope="session")
def http(shop):
    for name in program.PATHS:
        program.assert_built(name)
    return shop.http


@pytest.fixture(scope="session")
def peer(shop):
    return shop.peer()


@pytest.fixture(scope="session")
def dead_letters(peer):
    """What the session's services have rejected so far; listen before you send."""
    return peer.listen_to_dead_letters()


@pytest.fixture(autouse=True)
def _mark_logs():
    for one in program.started:
        one.mark()


@pytest.hookimpl(hookwrapper=True)
def pytest_runtest_makereport(item, call):
    """A failure shows what the programs logged meanwhile."""
    outcome = yield
    report = outcome.get_result()
    if report.failed:
        for one in program.started:
            log = one.log_since_mark()
            if log:
                state = "runs" if one.running else f"left with {one.process.poll() if one.process else None}"
                report.sections.append((f"log of {one.label} ({state})", log))


def pytest_sessionfinish(session, exitstatus):
    if program.sanitizer_reports() and exitstatus == 0:
        session.exitstatus = 1


def pytest_terminal_summary(terminalreporter):
    reports = program.sanitizer_reports()
    if reports:
        terminalreporter.section("sanitizer reports", red=True, bold=True)
        for line in reports:
            terminalreporter.write_line(line)
