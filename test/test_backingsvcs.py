"""dev_run_backingsvcs.sh: servers that come, stay, come back, and meet nobody else's."""
import os
import pathlib
import pwd
import re
import shlex
import shutil
import signal
import socket
import subprocess
import tempfile
import threading
import time
from urllib.parse import urlsplit

import pika
import psycopg2
import pytest
import redis

CHECKOUT = pathlib.Path(__file__).resolve().parent.parent
SCRIPT = CHECKOUT / "dev_run_backingsvcs.sh"
SERVERS = ("rabbitmq", "redis", "postgres")
PROGRAMS = {"rabbitmq": "beam.smp", "redis": "redis-server", "postgres": "postgres"}
USERS = {"products": {"AMQP_URI", "REDIS_URI"}, "orders": {"AMQP_URI", "POSTGRES_URI"}, "gateway": {"AMQP_URI"}}
COMMAND_TIMEOUT_S = 180 * float(os.environ.get("TIME_SCALE", "1"))
POLL_INTERVAL_S = 0.05


class Services:
    """The script on one run folder."""

    def __init__(self, run_dir, script=SCRIPT, user=None):
        self.run_dir = run_dir
        self.script = script
        self.user = user

    def call(self, *arguments):
        environment = {**os.environ}
        environment.pop("RUN_DIR", None)
        if self.run_dir is not None:
            environment["RUN_DIR"] = str(self.run_dir)
        as_user = ["runuser", "-u", self.user, "--"] if self.user else []
        return subprocess.run([*as_user, self.script, *arguments], env=environment, text=True, stdin=subprocess.DEVNULL,
                              stdout=subprocess.PIPE, stderr=subprocess.STDOUT, timeout=COMMAND_TIMEOUT_S)

    def done(self, *arguments):
        result = self.call(*arguments)
        assert result.returncode == 0, result.stdout
        return result.stdout

    @property
    def folder(self):
        return self.run_dir or self.script.parent / ".run"

    def pid(self, server):
        return int((self.folder / f"{server}.pid").read_text())

    def port(self, server):
        return int((self.folder / f"{server}.port").read_text())

    def kill(self, server, number=signal.SIGKILL):
        pid = self.pid(server)
        os.kill(pid, number)
        deadline = time.monotonic() + COMMAND_TIMEOUT_S
        while is_alive(pid):
            assert time.monotonic() < deadline
            time.sleep(POLL_INTERVAL_S)

    def uris(self, *arguments):
        return {name: shlex.split(value)[0]
                for name, value in re.findall(r"^export (\w+)=(.*)$", self.done("env", *arguments), re.M)}

    def answer_services(self):
        """Each service is let in by a user of its own name, wherever it needs one."""
        for service, variables in USERS.items():
            uris = self.uris("--service", service)
            assert set(uris) == variables
            assert {urlsplit(uri).username for uri in uris.values()} == {service}
            pika.BlockingConnection(pika.URLParameters(uris["AMQP_URI"])).close()
            if "REDIS_URI" in uris:
                assert redis.Redis.from_url(uris["REDIS_URI"]).exists("products:none") == 0
            if "POSTGRES_URI" in uris:
                psycopg2.connect(uris["POSTGRES_URI"].rsplit("/", 1)[0] + "/postgres").close()

    def amqp(self):
        return pika.BlockingConnection(pika.URLParameters(self.uris()["AMQP_URI"]))

    def redis(self):
        return redis.Redis.from_url(self.uris()["REDIS_URI"], decode_responses=True)

    def postgres(self):
        connection = psycopg2.connect(self.uris()["POSTGRES_URI"].rsplit("/", 1)[0] + "/postgres")
        connection.autocommit = True
        return connection

    def answer(self):
        """Each of the three answers to what the script says about it."""
        self.amqp().close()
        assert self.redis().ping()
        connection = self.postgres()
        connection.cursor().execute("SELECT 1")
        connection.close()
        return True


def is_alive(pid):
    try:
        return pathlib.Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] != "Z"
    except OSError:
        return False


def listeners_of(pid):
    """(address, port) of the listening sockets of a process."""
    inodes = set()
    for fd in pathlib.Path(f"/proc/{pid}/fd").iterdir():
        try:
            inodes.add(os.readlink(fd))
        except OSError:
            continue
    found = []
    for table, width in (("tcp", 8), ("tcp6", 32)):
        for line in pathlib.Path(f"/proc/net/{table}").read_text().splitlines()[1:]:
            fields = line.split()
            if fields[3] == "0A" and f"socket:[{fields[9]}]" in inodes:
                address, port = fields[1].split(":")
                assert len(address) == width
                found.append((address, int(port, 16)))
    return found


def command_lines():
    """Of all processes."""
    lines = []
    for path in pathlib.Path("/proc").glob("[0-9]*/cmdline"):
        try:
            lines.append(path.read_bytes())
        except OSError:
            continue  # it has just ended
    return lines


LOOPBACK = {"0100007F", "00000000000000000000000001000000"}


@pytest.fixture(scope="module")
def services(tmp_path_factory):
    """Running, shared by the tests that leave them so."""
    services = Services(tmp_path_factory.mktemp("run"))
    try:
        services.done("start")
        yield services
    finally:
        services.done("stop")


@pytest.fixture
def running(services):
    services.done("start")
    return services


@pytest.fixture
def make_services(tmp_path):
    made = []

    def make(**options):
        made.append(Services(**{"run_dir": tmp_path / f"run{len(made)}", **options}))
        return made[-1]

    yield make
    for services in made:
        services.call("stop")


# ---- the commands ----------------------------------------------------------------------------------------------------

def test_all_three_answer_and_the_pid_files_name_the_servers(running):
    running.answer()
    for server, program in PROGRAMS.items():
        assert pathlib.Path(f"/proc/{running.pid(server)}/comm").read_text().strip() == program


def test_nobody_but_this_machine_can_reach_them(running):
    for name in (*SERVERS, "rabbitmq-epmd"):
        listening = listeners_of(running.pid(name))
        assert listening
        assert {address for address, _ in listening} <= LOOPBACK, name


def test_starting_again_changes_nothing(running):
    before = [running.pid(server) for server in SERVERS], running.uris()
    running.done("start")
    running.done()
    assert ([running.pid(server) for server in SERVERS], running.uris()) == before


def test_env_is_for_the_shell(running):
    output = subprocess.run(["sh", "-c", 'eval "$("$0" env)" && printf "%s %s %s" "$AMQP_URI" "$REDIS_URI" "$POSTGRES_URI"',
                             SCRIPT], env={**os.environ, "RUN_DIR": str(running.run_dir)}, check=True, text=True,
                            stdout=subprocess.PIPE, timeout=COMMAND_TIMEOUT_S).stdout
    assert output.split() == [running.uris()[name] for name in ("AMQP_URI", "REDIS_URI", "POSTGRES_URI")]
    assert running.uris()["AMQP_URI"] == f"amqp://guest:guest@127.0.0.1:{running.port('rabbitmq')}"


def test_one_of_them_alone(running):
    assert running.done("stop", "redis").count("does not run") == 1
    status = running.call("status")
    assert status.returncode == 1 and "redis     does not run" in status.stdout
    assert running.call("status", "redis").returncode == 1
    running.done("status", "rabbitmq", "postgres")
    port = running.port("redis")
    running.done("start", "redis")
    running.done("status")
    assert running.port("redis") == port
    running.answer()


def test_rabbitmqctl_talks_to_this_broker(running):
    assert re.search(r"^guest\b", running.done("rabbitmqctl", "list_users"), re.M)


def test_durability_is_on(running):
    assert running.redis().config_get("appendonly") == {"appendonly": "yes"}
    cursor = running.postgres().cursor()
    for setting in ("fsync", "synchronous_commit", "full_page_writes"):
        cursor.execute(f"SHOW {setting}")
        assert cursor.fetchone() == ("on",)


def test_passwords_are_for_their_owner_alone(running):
    assert running.folder.stat().st_mode & 0o077 == 0
    lines = command_lines()
    passwords = {path.parent.name: path.read_text().strip() for path in running.folder.glob("*/password")}
    assert set(passwords) == {"postgres", "redis"}
    for password in passwords.values():
        assert len(password) >= 32 and not any(password.encode() in line for line in lines)
    wrong = running.uris()["POSTGRES_URI"].replace(passwords["postgres"], "postgres").rsplit("/", 1)[0] + "/postgres"
    with pytest.raises(psycopg2.OperationalError, match="password authentication failed"):
        psycopg2.connect(wrong)


@pytest.mark.parametrize("login, word", [("", "required"), (":wrong@", "invalid"), ("default:wrong@", "invalid")])
def test_nobody_comes_into_redis_without_a_password(running, login, word):
    parts = urlsplit(running.uris()["REDIS_URI"])
    assert (parts.username, parts.password) == ("default", (running.folder / "redis" / "password").read_text().strip())
    with pytest.raises((redis.exceptions.AuthenticationError, redis.exceptions.ResponseError), match=word):
        redis.Redis.from_url(f"redis://{login}127.0.0.1:{parts.port}/0").ping()


def test_each_service_has_users_of_its_own(running):
    running.answer_services()
    assert set(running.uris("--service", "products", "redis")) == {"REDIS_URI"}
    assert running.uris("--service", "gateway", "redis", "postgres") == {}
    passwords = [path for path in running.folder.glob("*/*password")]
    assert len(passwords) == 7 and all(path.stat().st_mode & 0o077 == 0 for path in passwords)
    assert len({path.read_text() for path in passwords}) == 7
    for path in (running.folder / "rabbitmq" / "definitions.json", running.folder / "redis" / "users.acl"):
        assert path.stat().st_mode & 0o077 == 0
        assert not any(password.read_text().strip() in path.read_text() for password in passwords)


def test_servers_that_an_older_version_started_get_the_users(running):
    """They go on running, and nothing that they hold is lost."""
    before = [running.pid(server) for server in SERVERS]
    running.redis().set("held", "kept")
    admin = running.redis()
    admin.acl_deluser("products")
    admin.execute_command("ACL", "SETUSER", "default", "reset", "on", "nopass", "~*", "&*", "+@all")
    connection = running.postgres()
    connection.cursor().execute("DROP ROLE orders")
    connection.close()
    for service in USERS:
        running.done("rabbitmqctl", "delete_user", service)
    for name in ("redis/users.acl", "redis/users.loaded", "rabbitmq/definitions.json", "rabbitmq/definitions.loaded"):
        (running.folder / name).unlink()
    for path in [*running.folder.glob("*/?*.password"), running.folder / "redis" / "password"]:
        path.unlink()
    assert running.call("env", "--service", "products").returncode == 1
    running.answer()  # by the URIs that `env` gives before the next start
    running.done("start")
    running.answer()
    running.answer_services()
    assert urlsplit(running.uris()["REDIS_URI"]).password
    assert running.redis().get("held") == admin.get("held") == "kept"
    assert [running.pid(server) for server in SERVERS] == before


def test_a_folder_of_an_older_version_gets_the_users(running):
    """The same where the servers do not run: the next start makes them, and the data stay."""
    running.redis().set("held", "kept")
    connection = running.postgres()
    connection.cursor().execute("DROP ROLE orders")
    connection.close()
    for service in USERS:
        running.done("rabbitmqctl", "delete_user", service)
    running.done("stop")
    for path in [*running.folder.glob("redis/users.*"), *running.folder.glob("rabbitmq/definitions.*"),
                 *running.folder.glob("*/?*.password"), running.folder / "redis" / "password"]:
        path.unlink()
    (running.folder / "redis" / "redis.conf").write_text(
        f"bind 127.0.0.1\nport {running.port('redis')}\nappendonly yes\nsave \"\"\n")
    running.done("start")
    running.answer()
    running.answer_services()
    assert running.redis().get("held") == "kept"


@pytest.mark.parametrize("arguments", [["restart"], ["start", "mysql"], ["stop", "redis", "mysql"], ["env", "--service", "shop"], [""]])
def test_wrong_usage(running, arguments):
    refused = running.call(*arguments)
    assert refused.returncode == 2 and arguments[-1] in refused.stdout


def test_ports_are_chosen_from_the_range_that_is_named(running):
    lowest, highest = map(int, os.environ["SERVER_PORTS"].split("-"))  # as conftest.py sets it
    assert all(lowest <= running.port(name) <= highest for name in (*SERVERS, "rabbitmq-epmd", "rabbitmq-dist"))


@pytest.mark.parametrize("ports", ["20000", "30000-20000", "60000-70000", "some-more"])
def test_a_range_of_ports_that_is_none(running, monkeypatch, ports):
    monkeypatch.setenv("SERVER_PORTS", ports)
    refused = running.call("status")
    assert refused.returncode == 2 and "SERVER_PORTS" in refused.stdout and ports in refused.stdout


def test_before_the_first_start(make_services):
    services = make_services()
    assert services.call("status").returncode == 1
    assert services.call("env", "--service", "orders").returncode == 1
    assert services.call("env").returncode == 1 and "never started" in services.call("env").stdout
    assert services.call("rabbitmqctl", "status").returncode == 1
    services.done("stop")


# ---- data ------------------------------------------------------------------------------------------------------------

@pytest.mark.parametrize("way", ["stop", "kill"])
def test_data_and_ports_outlive_the_servers(running, way):
    queue, key, table = f"kept-{way}", f"kept-{way}", f"kept_{way}"
    uris = running.uris()
    connection = running.amqp()
    channel = connection.channel()
    channel.confirm_delivery()
    channel.queue_declare(queue, durable=True)
    channel.basic_publish("", queue, b"kept", pika.BasicProperties(delivery_mode=2))
    connection.close()
    running.redis().set(key, "kept")
    connection = running.postgres()
    connection.cursor().execute(f"CREATE TABLE {table} AS SELECT 'kept'::text AS value")
    connection.close()
    if way == "stop":
        running.done("stop")
        assert running.call("status").stdout.count("does not run") == 3
    else:
        # RabbitMQ promises what was confirmed, not a queue that was declared a moment ago: it writes that down later.
        assert running.done("rabbitmqctl", "eval", "mnesia:sync_log().").strip() == "ok"
        for server in SERVERS:
            running.kill(server)
    running.done("start")
    assert running.uris() == uris
    connection = running.amqp()
    assert connection.channel().basic_get(queue, auto_ack=True)[2] == b"kept"
    connection.close()
    assert running.redis().get(key) == "kept"
    connection = running.postgres()
    cursor = connection.cursor()
    cursor.execute(f"SELECT value FROM {table}")
    assert cursor.fetchone() == ("kept",)
    connection.close()


# ---- predecessors and neighbours -------------------------------------------------------------------------------------

@pytest.mark.parametrize("server", SERVERS)
def test_a_killed_server_comes_back(running, server):
    running.kill(server)
    assert running.call("status", server).returncode == 1
    running.done("start", server)
    running.answer()


@pytest.mark.parametrize("server", SERVERS)
def test_a_stopped_server_that_hears_no_signal_is_stopped_all_the_same(running, server):
    pid = running.pid(server)
    os.kill(pid, signal.SIGSTOP)
    running.done("stop", server)
    assert not is_alive(pid)


def test_a_pid_that_now_belongs_to_somebody_else_is_left_alone(running):
    running.kill("redis")
    with subprocess.Popen(["sleep", "1000"]) as foreign:
        try:
            # What is left when the machine was started anew, and the number was given out again.
            recorded = (running.folder / "redis.process").read_text().split()
            (running.folder / "redis.pid").write_text(f"{foreign.pid}\n")
            (running.folder / "redis.process").write_text(f"{foreign.pid} {recorded[1]} {recorded[2]}\n")
            assert running.call("status", "redis").returncode == 1
            running.done("stop", "redis")
            running.done("start", "redis")
            assert foreign.poll() is None
            assert running.redis().ping()
        finally:
            foreign.kill()


def test_a_lost_pid_file_is_written_again(running):
    pid = running.pid("redis")
    (running.folder / "redis.pid").unlink()
    running.done("start", "redis")
    assert running.pid("redis") == pid


def test_servers_that_lost_their_run_folder_are_replaced(make_services):
    services = make_services()
    services.done("start", "redis", "postgres")
    orphans = [services.pid(server) for server in ("redis", "postgres")]
    shutil.rmtree(services.folder)
    services.done("start", "redis", "postgres")
    assert not any(is_alive(pid) for pid in orphans)
    services.done("status", "redis", "postgres")
    services.done("stop")


def test_a_first_start_that_was_interrupted_is_begun_anew(make_services):
    services = make_services()
    services.run_dir.mkdir()
    (services.run_dir / "postgres" / "data.new").mkdir(parents=True)
    (services.run_dir / "postgres" / "data.new" / "PG_VERSION").write_text("15\n")
    (services.run_dir / "rabbitmq" / "data").mkdir(parents=True)
    (services.run_dir / "rabbitmq" / "data" / "schema.DAT").write_text("half")
    (services.run_dir / "rabbitmq" / ".erlang.cookie").touch(0o400)
    services.done("start")
    services.answer()


@pytest.mark.parametrize("server", SERVERS)
def test_a_port_that_was_taken_meanwhile_is_replaced(running, server):
    running.done("stop", server)
    port = running.port(server)
    with socket.socket() as taken:
        taken.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        taken.bind(("127.0.0.1", port))
        taken.listen()
        running.done("start", server)
        assert running.port(server) != port
    running.answer()


def test_several_starts_at_once(make_services):
    services = make_services()
    results = []
    threads = [threading.Thread(target=lambda: results.append(services.call("start"))) for _ in range(3)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert [result.returncode for result in results] == [0, 0, 0], [result.stdout for result in results]
    assert len({tuple(sorted(re.findall(r"pid \d+", result.stdout))) for result in results}) == 1
    services.answer()


def test_two_folders_do_not_meet(running, make_services):
    other = make_services()
    other.done("start")
    assert len({services.port(name) for services in (running, other) for name in (*SERVERS, "rabbitmq-epmd")}) == 8
    running.redis().set("whose", "mine")
    assert other.redis().get("whose") is None
    connection = running.amqp()
    connection.channel().queue_declare("mine")
    assert "mine" not in other.done("rabbitmqctl", "list_queues")
    connection.close()
    other.done("stop")
    running.answer()


def test_a_server_that_does_not_start_shows_why(make_services):
    services = make_services()
    services.done("start", "postgres")
    services.done("stop")
    version = services.folder / "postgres" / "data" / "PG_VERSION"
    version.write_text("9.6\n")
    failed = services.call("start", "postgres", "redis")
    assert failed.returncode == 1
    assert "postgres does not start" in failed.stdout and "log/postgres.log" in failed.stdout
    assert "initialized by PostgreSQL version 9.6" in failed.stdout
    services.done("status", "redis")


# ---- whose they are --------------------------------------------------------------------------------------------------

needs_root = pytest.mark.skipif(os.geteuid() != 0, reason="only root can be somebody else")


def copy_checkout(folder):
    shutil.copytree(CHECKOUT / "dev", folder / "dev", ignore=shutil.ignore_patterns("__pycache__"))
    shutil.copy2(SCRIPT, folder)
    return folder / SCRIPT.name


@needs_root
def test_root_runs_them_in_a_folder_that_others_have_no_way_to(tmp_path, make_services):
    closed = tmp_path / "a closed folder"
    closed.mkdir(mode=0o700)
    (closed / "checkout").mkdir()
    services = make_services(run_dir=None, script=copy_checkout(closed / "checkout"))
    services.done("start")
    services.answer()
    owner = pwd.getpwuid(os.stat(f"/proc/{services.pid('postgres')}").st_uid).pw_name
    assert owner in ("postgres", "nobody")
    services.kill("postgres")
    services.done("start")
    services.answer()
    assert sorted(path.name for path in (closed / "checkout").iterdir()) == [".run", "dev", SCRIPT.name]


@needs_root
def test_an_ordinary_user_runs_them_as_that_user(make_services):
    with tempfile.TemporaryDirectory(prefix="checkout-") as folder:
        folder = pathlib.Path(folder)
        script = copy_checkout(folder)
        account = pwd.getpwnam("nobody")
        for path in (folder, *folder.rglob("*")):
            os.chown(path, account.pw_uid, account.pw_gid)
        services = make_services(run_dir=None, script=script, user="nobody")
        try:
            services.done("start")
            services.answer()
            for server in SERVERS:
                assert os.stat(f"/proc/{services.pid(server)}").st_uid == account.pw_uid
            # Root does not take over what another user started.
            refused = Services(run_dir=None, script=script).call("start")
            assert refused.returncode == 1 and "belongs to nobody" in refused.stdout
        finally:
            services.done("stop")
