"""dev_run.sh as a developer uses it: the built programs, servers and ports of its own, signals and failures."""
import os
import pathlib
import re
import signal
import socket
import subprocess
import time
from urllib.parse import urlsplit

import pytest
import requests

from support.ports import free_port, is_free

CHECKOUT = pathlib.Path(__file__).resolve().parent.parent
DEV_RUN = CHECKOUT / "dev_run.sh"
BACKING_SERVICES = CHECKOUT / "dev_run_backingsvcs.sh"
TIME_SCALE = float(os.environ.get("TIME_SCALE", "1"))
READY_TIMEOUT_S = 120 * TIME_SCALE
STOP_TIMEOUT_S = 60 * TIME_SCALE
COMMAND_TIMEOUT_S = 120 * TIME_SCALE
POLL_INTERVAL_S = 0.05
FIRST_DEBUG_PORT = 5678
SETTINGS = ("AMQP_URI", "REDIS_URI", "POSTGRES_URI", "PORT", "BIND_ADDRESS", "INSTANCES", "DEBUG", "LOG_FORMAT",
            "LOG_LEVEL", "READY_FILE")


def wait_until(condition, what, timeout_s):
    deadline = time.monotonic() + timeout_s
    while not (value := condition()):
        assert time.monotonic() < deadline, f"not within {timeout_s:g} s: {what}"
        time.sleep(POLL_INTERVAL_S)
    return value


def environment_of(run_dir, **settings):
    clean = {name: value for name, value in os.environ.items() if name not in SETTINGS}
    return {**clean, "RUN_DIR": str(run_dir), **settings}


class Run:
    """One dev_run.sh, as if in a terminal of its own."""

    def __init__(self, run_dir, directory, *services, **settings):
        self.run_dir = run_dir
        self.output_path = directory / "output.log"
        with self.output_path.open("wb") as output:
            self.process = subprocess.Popen([DEV_RUN, *services], env=environment_of(run_dir, **settings),
                                            stdin=subprocess.DEVNULL, stdout=output, stderr=subprocess.STDOUT,
                                            start_new_session=True)

    @property
    def output(self):
        return self.output_path.read_text(errors="replace")

    def says(self, pattern):
        return re.search(pattern, self.output, re.M)

    def wait_says(self, pattern, timeout_s=READY_TIMEOUT_S):
        def said_or_gone():
            return self.says(pattern) or self.process.poll() is not None

        wait_until(said_or_gone, f"{pattern} in:\n{self.output}", timeout_s)
        assert self.says(pattern), f"ended with {self.process.returncode}:\n{self.output}"
        return self

    def wait_ready(self):
        return self.wait_says("^Ready: ")

    def wait_exit(self):
        try:
            return self.process.wait(STOP_TIMEOUT_S)
        except subprocess.TimeoutExpired:
            raise AssertionError(f"did not end:\n{self.output}") from None

    def stop(self, number=signal.SIGTERM):
        self.process.send_signal(number)
        return self.wait_exit()

    def services(self):
        """label -> pid, of what this run started and what runs."""
        found = {}
        for path in self.run_dir.glob("*.pid"):
            pid = int(path.read_text())
            if is_alive(pid) and pathlib.Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[1] == str(self.process.pid):
                found[path.stem] = pid
        return found

    def kill(self):
        """Whatever happened: nothing of it is left."""
        if self.process.poll() is None:
            self.process.terminate()
            try:
                self.process.wait(STOP_TIMEOUT_S)
            except subprocess.TimeoutExpired:
                os.killpg(self.process.pid, signal.SIGKILL)
                self.process.wait()


def processes_of(run_dir):
    """What runs and mentions the run folder: programs by their environment, servers by their working directory."""
    found = []
    for entry in pathlib.Path("/proc").glob("[0-9]*"):
        try:
            in_folder = os.readlink(entry / "cwd").startswith(str(run_dir))
            named = os.fsencode(run_dir) in (entry / "environ").read_bytes()
            state = (entry / "stat").read_text().rpartition(")")[2].split()[0]
        except OSError:
            continue
        if (in_folder or named) and state != "Z" and int(entry.name) != os.getpid():
            found.append((int(entry.name), (entry / "cmdline").read_bytes().replace(b"\0", b" ")[:100]))
    return found


@pytest.fixture(scope="module")
def run_dir(tmp_path_factory):
    """The servers' data, shared by the tests of this module; most of them find the servers running."""
    folder = tmp_path_factory.mktemp("dev_run")
    environment = environment_of(folder)
    try:
        subprocess.run([BACKING_SERVICES, "start"], env=environment, check=True, timeout=COMMAND_TIMEOUT_S)
        yield folder
    finally:
        subprocess.run([BACKING_SERVICES, "stop"], env=environment, check=True, timeout=COMMAND_TIMEOUT_S)


@pytest.fixture
def start(run_dir, tmp_path):
    runs = []

    def start_run(*services, in_run_dir=run_dir, **settings):
        settings.setdefault("PORT", str(free_port(4)))
        directory = tmp_path / str(len(runs))
        directory.mkdir()
        run = Run(in_run_dir, directory, *services, **settings)
        run.port = int(settings["PORT"]) if settings["PORT"].isdigit() else None
        runs.append(run)
        return run

    yield start_run
    for run in runs:
        run.kill()


def refused(run, *parts):
    """Exit 2, by one line that holds all the parts."""
    assert run.wait_exit() == 2, run.output
    lines = run.output.splitlines()
    assert len(lines) == 1, run.output
    for part in parts:
        assert part in lines[0]


def test_make_builds_where_the_path_holds_a_space(tmp_path):
    build = tmp_path / "a shop" / "build"
    build.mkdir(parents=True)
    (build / "build.ninja").write_text("rule touch\n  command = touch $out\nbuild built: touch\nbuild all: phony built\n")
    made = subprocess.run(["make", "-C", CHECKOUT, f"BUILD_DIR={build}"], capture_output=True, text=True, timeout=60)
    assert made.returncode == 0, made.stderr
    assert (build / "built").exists()


# ---- the whole of it -------------------------------------------------------------------------------------------------

@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGHUP])
def test_it_runs_the_shop_and_stops_all_it_started(start, tmp_path, number):
    own = tmp_path / "run"
    run = start(in_run_dir=own).wait_ready()
    assert requests.get(f"http://127.0.0.1:{run.port}/products/none", timeout=30).status_code == 404
    assert set(run.services()) == {"products", "orders", "gateway"}
    assert f"http://127.0.0.1:{run.port}" in run.output and "curl" in run.output
    assert run.stop(number) == 0, run.output
    assert processes_of(own) == []
    assert is_free(run.port)


def test_ctrl_c_reaches_the_whole_terminal_and_still_drains(start):
    run = start().wait_ready()
    os.killpg(run.process.pid, signal.SIGINT)
    assert run.wait_exit() == 0, run.output
    assert run.services() == {}


def test_data_are_kept_and_running_servers_are_left_running(start, run_dir):
    product = {"id": "kept", "title": "Kept", "passenger_capacity": 1, "maximum_speed": 2, "in_stock": 3}
    run = start().wait_ready()
    assert requests.post(f"http://127.0.0.1:{run.port}/products", json=product, timeout=30).status_code == 200
    assert run.stop() == 0
    # These servers ran before it came; they run still.
    subprocess.run([BACKING_SERVICES, "status"], env=environment_of(run_dir), check=True, timeout=COMMAND_TIMEOUT_S)
    run = start().wait_ready()
    assert requests.get(f"http://127.0.0.1:{run.port}/products/kept", timeout=30).json() == product


def test_the_smoke_test_passes_on_it(start):
    run = start().wait_ready()
    smoke = subprocess.run([CHECKOUT / "test" / "nex-smoketest.sh", "local"], text=True, capture_output=True,
                           env={**os.environ, "PORT": str(run.port)}, timeout=COMMAND_TIMEOUT_S)
    assert smoke.returncode == 0, smoke.stdout + smoke.stderr
    assert re.fullmatch(r"\d+ passed, 0 failed", smoke.stdout.splitlines()[-1])


def test_the_originals_names_are_taken_and_each_service_runs_alone(start):
    products = start("products.service").wait_ready()
    assert set(products.services()) == {"products"}
    orders = start("orders.service").wait_ready()
    assert set(orders.services()) == {"orders"}
    gateway = start("gateway.service").wait_ready()
    assert set(gateway.services()) == {"gateway"}
    product = {"id": "alone", "title": "Alone", "passenger_capacity": 1, "maximum_speed": 2, "in_stock": 3}
    assert requests.post(f"http://127.0.0.1:{gateway.port}/products", json=product, timeout=30).status_code == 200
    for run in (gateway, orders, products):
        assert run.stop() == 0, run.output


def test_the_last_of_several_runs_stops_the_servers_that_the_first_started(start, tmp_path):
    own = tmp_path / "run"
    first = start("products", in_run_dir=own).wait_ready()
    second = start("gateway", in_run_dir=own).wait_ready()
    assert first.stop() == 0
    status = [BACKING_SERVICES, "status", "rabbitmq", "redis"]
    assert subprocess.run(status, env=environment_of(own), timeout=COMMAND_TIMEOUT_S).returncode == 0
    assert second.stop() == 0
    assert processes_of(own) == []


def test_instances(start):
    run = start("gateway", "products", INSTANCES="3").wait_ready()
    assert set(run.services()) == {f"{name}-{n}" for name in ("gateway", "products") for n in (1, 2, 3)}
    for port in range(run.port, run.port + 3):
        assert requests.get(f"http://127.0.0.1:{port}/products/none", timeout=30).status_code == 404
    assert run.stop() == 0, run.output
    assert run.services() == {}


def test_settings_reach_the_services(start):
    run = start(LOG_FORMAT="json", LOG_LEVEL="debug", PRODUCT_IMAGE_ROOT="http://pictures.example.com").wait_ready()
    assert re.search(r"^orders +\| \{", run.output, re.M), run.output
    base = f"http://127.0.0.1:{run.port}"
    product = {"id": "pictured", "title": "Pictured", "passenger_capacity": 1, "maximum_speed": 2, "in_stock": 3}
    requests.post(f"{base}/products", json=product, timeout=30)
    line = {"product_id": "pictured", "price": "1.00", "quantity": 1}
    order = requests.post(f"{base}/orders", json={"order_details": [line]}, timeout=30).json()["id"]
    details = requests.get(f"{base}/orders/{order}", timeout=30).json()["order_details"]
    assert details[0]["image"] == "http://pictures.example.com/pictured.jpg"


def test_each_service_is_its_own_user_and_none_is_the_owner(start, run_dir):
    run = start(LOG_FORMAT="json").wait_ready()
    given = {name: dict(line.split("=", 1) for line in pathlib.Path(f"/proc/{pid}/environ").read_text().split("\0") if "=" in line)
             for name, pid in run.services().items() if name != "gateway"}  # Kore writes its title over its environment
    users = {name: {variable: urlsplit(uri).username for variable, uri in one.items() if variable.endswith("_URI")}
             for name, one in given.items()}
    assert users == {"products": {"AMQP_URI": "products", "REDIS_URI": "products"},
                     "orders": {"AMQP_URI": "orders", "POSTGRES_URI": "orders"}}
    connected = subprocess.run([BACKING_SERVICES, "rabbitmqctl", "-q", "list_connections", "user"], env=environment_of(run_dir),
                               check=True, text=True, stdout=subprocess.PIPE, timeout=COMMAND_TIMEOUT_S).stdout.split()
    assert sorted(set(connected) - {"user"}) == ["gateway", "orders", "products"]
    for path in run_dir.glob("*/*password"):
        assert path.read_text().strip() not in run.output


# ---- what goes wrong -------------------------------------------------------------------------------------------------

@pytest.mark.parametrize("killed", ["products", "orders", "gateway"])
def test_a_service_that_dies_stops_the_rest(start, killed):
    run = start().wait_ready()
    os.kill(run.services()[killed], signal.SIGKILL)
    assert run.wait_exit() == 1, run.output
    assert run.services() == {}
    assert is_free(run.port)
    assert f"{killed} ended by itself" in run.output
    assert f"the last lines of {run.run_dir}/log/{killed}.log" in run.output
    assert "line " not in run.output.split("the last lines of")[0].split("Ready:")[1], "bash's own words"


def test_if_it_is_killed_the_services_go_too(start):
    run = start().wait_ready()
    services = run.services()
    os.kill(run.process.pid, signal.SIGKILL)
    wait_until(lambda: not [pid for pid in services.values() if is_alive(pid)], "services are gone", STOP_TIMEOUT_S)
    assert is_free(run.port)


def is_alive(pid):
    try:
        return pathlib.Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] != "Z"
    except OSError:
        return False


def test_it_can_be_stopped_while_it_starts(start, tmp_path):
    own = tmp_path / "run"
    run = start(in_run_dir=own)
    wait_until(lambda: (own / "rabbitmq.pid").exists(), "the broker was started", READY_TIMEOUT_S)
    assert run.stop() == 0, run.output
    assert processes_of(own) == []


def test_a_setting_that_a_service_refuses(start):
    run = start("orders", LOG_LEVEL="shouting")
    assert run.wait_exit() == 2, run.output
    assert "LOG_LEVEL" in run.output and "orders refuses its settings" in run.output


def test_a_port_in_use(start):
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        taken.listen()
        port = taken.getsockname()[1]
        refused(start(PORT=str(port)), f"port {port}", "in use", f"pid {os.getpid()}", "PORT=")


def test_a_port_in_use_for_one_of_several_gateways(start):
    first = free_port(3)
    with socket.socket() as taken:
        taken.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        taken.bind(("127.0.0.1", first + 2))
        taken.listen()
        refused(start("gateway", PORT=str(first), INSTANCES="3"), f"port {first + 2}", "in use")


@pytest.mark.parametrize("settings, parts", [
    ({"AMQP_URI": "amqp://127.0.0.1:1"}, ["AMQP_URI", "nothing answers at 127.0.0.1:1"]),
    ({"AMQP_URI": "http://127.0.0.1:5672"}, ["AMQP_URI", "amqp://"]),
    ({"AMQP_URI": "amqp://127.0.0.1:port"}, ["AMQP_URI", "cannot be read"]),
    ({"REDIS_URI": "redis://127.0.0.1:1/0"}, ["REDIS_URI", "nothing answers"]),
    ({"REDIS_URI": "127.0.0.1:6379"}, ["REDIS_URI", "redis://"]),
    ({"POSTGRES_URI": "postgresql://postgres:secret@127.0.0.1:1/orders"}, ["POSTGRES_URI", "nothing answers"]),
    ({"POSTGRES_URI": "mysql://127.0.0.1/orders"}, ["POSTGRES_URI", "postgresql://"]),
    ({"PORT": "0"}, ["PORT is '0'"]),
    ({"PORT": "65536"}, ["PORT"]),
    ({"PORT": "http"}, ["PORT is 'http'"]),
    ({"INSTANCES": "0"}, ["INSTANCES is '0'"]),
    ({"INSTANCES": "many"}, ["INSTANCES"]),
    ({"BIND_ADDRESS": "192.0.2.1"}, ["BIND_ADDRESS", "192.0.2.1"]),
    ({"DEBUG": "perhaps"}, ["DEBUG"]),
])
def test_a_wrong_setting_or_a_missing_server_is_one_line(start, settings, parts):
    run = start(**settings)
    refused(run, *parts)
    assert "secret" not in run.output


def test_a_wrong_password_or_virtual_host_of_the_broker(start, run_dir):
    exports = subprocess.run([BACKING_SERVICES, "env", "rabbitmq"], env=environment_of(run_dir), check=True, text=True,
                             stdout=subprocess.PIPE, timeout=COMMAND_TIMEOUT_S).stdout
    address = exports.strip().rpartition("@")[2]
    refused(start(AMQP_URI=f"amqp://guest:not-this-one@{address}"), "AMQP_URI", "ACCESS_REFUSED")
    refused(start(AMQP_URI=f"amqp://guest:guest@{address}/nowhere"), "AMQP_URI", "nowhere")


def test_a_server_of_ones_own_is_used_and_nothing_is_started_for_it(start, run_dir, tmp_path):
    exports = subprocess.run([BACKING_SERVICES, "env"], env=environment_of(run_dir), check=True, text=True,
                             stdout=subprocess.PIPE, timeout=COMMAND_TIMEOUT_S).stdout
    uris = dict(line.removeprefix("export ").split("=", 1) for line in exports.splitlines())
    own = tmp_path / "run"
    run = start(in_run_dir=own, **uris).wait_ready()
    assert not any((own / f"{server}.pid").exists() for server in ("rabbitmq", "redis", "postgres"))
    assert run.stop() == 0


def test_an_unknown_service(start):
    refused(start("shipping"), "shipping", "products orders gateway")


def test_help():
    done = subprocess.run([DEV_RUN, "--help"], text=True, capture_output=True, timeout=COMMAND_TIMEOUT_S)
    assert done.returncode == 0 and "INSTANCES" in done.stdout


# ---- under the debugger ----------------------------------------------------------------------------------------------

def listener(port):
    """Connecting would count as the debugger, so the kernel's table is read."""
    for line in pathlib.Path("/proc/net/tcp").read_text().splitlines()[1:]:
        fields = line.split()
        if fields[1] == f"0100007F:{port:04X}" and fields[3] == "0A":
            return True
    return False


def wait_listening(run, ports):
    wait_until(lambda: all(map(listener, ports)) or run.process.poll() is not None, "gdbserver listens", READY_TIMEOUT_S)
    assert run.process.poll() is None, run.output


@pytest.fixture
def debug_ports():
    ports = range(FIRST_DEBUG_PORT, FIRST_DEBUG_PORT + 3)
    taken = [port for port in ports if not is_free(port)]
    if taken:
        pytest.skip(f"ports {taken}, which DEBUG=1 takes, are in use on this machine")
    return ports


def test_debug_waits_at_the_first_instruction_and_ends_when_asked(start, debug_ports):
    run = start(DEBUG="1")
    wait_listening(run, debug_ports)
    for port, service in zip(debug_ports, ("products", "orders", "gateway")):
        assert run.says(rf"^{service} waits for a debugger on 127\.0\.0\.1:{port}\b"), run.output
    assert not list(run.run_dir.glob("*.ready")), "a program ran before the debugger came"
    assert not run.says("^Ready: ")
    assert run.stop() == 0, run.output
    assert not any(listener(port) for port in debug_ports)
    assert run.services() == {}


class GdbClient:
    """As much of GDB's remote protocol as lets a program run."""

    def __init__(self, port):
        self.socket = socket.create_connection(("127.0.0.1", port), timeout=READY_TIMEOUT_S)

    def ask(self, command):
        self.send(command)
        answer = b""
        while b"#" not in answer or len(answer.split(b"#", 1)[1]) < 2:
            more = self.socket.recv(4096)
            assert more, "gdbserver hung up"
            answer += more
        self.socket.sendall(b"+")
        return answer.partition(b"$")[2].split(b"#")[0]

    def send(self, command):
        self.socket.sendall(b"+$%s#%02x" % (command, sum(command) % 256))

    def close(self):
        self.socket.close()


def test_debug_goes_on_when_a_debugger_connects_and_the_service_drains_under_it(start, debug_ports):
    run = start("products", DEBUG="1")
    wait_listening(run, debug_ports[:1])
    debugger = GdbClient(debug_ports[0])
    try:
        assert debugger.ask(b"?").startswith((b"T05", b"S05")), "stopped at its first instruction"
        passed_on = b"QPassSignals:" + b";".join(b"%x" % number for number in range(1, 32) if number != 5)
        assert debugger.ask(passed_on) == b"OK"
        debugger.send(b"c")
        run.wait_ready()
        assert run.stop() == 0, run.output
    finally:
        debugger.close()
    assert run.services() == {}


def test_what_a_debugger_lets_go_runs_on_and_stops_with_the_rest(start, debug_ports):
    run = start("products", DEBUG="1")
    wait_listening(run, debug_ports[:1])
    debugger = GdbClient(debug_ports[0])
    try:
        assert debugger.ask(b"?").startswith((b"T05", b"S05"))
        assert debugger.ask(b"D") == b"OK"  # detach
    finally:
        debugger.close()
    run.wait_ready()
    assert run.stop() == 0, run.output
    assert "No such file" not in run.output
    assert run.services() == {}
