"""rpclib's README: its examples are the files that are compiled, and they print what it says."""

import os
import pathlib
import socket
import subprocess

import pytest

ROOT = pathlib.Path(__file__).resolve().parent.parent
BUILD = pathlib.Path(os.environ.get("BUILD_DIR", ROOT / "build")).resolve() / "rpclib"
TIMEOUT_S = 20 * float(os.environ.get("TIME_SCALE", "1"))


def run(amqp_uri, *command):
    environment = dict(os.environ, AMQP_URI=amqp_uri, LOG_LEVEL="error")
    done = subprocess.run(command, env=environment, stdout=subprocess.PIPE, timeout=TIMEOUT_S, check=False)
    return done.returncode, done.stdout.decode()


@pytest.fixture(scope="module")
def broker(servers):
    return servers.uris["AMQP_URI"]


@pytest.fixture(scope="module")
def greeter(broker):
    process = subprocess.Popen([BUILD / "greeter"], env=dict(os.environ, AMQP_URI=broker, LOG_LEVEL="error"))
    try:
        # The queue is there, or the call waits in it: only an unbound key comes back, so ask until it does not.
        code, _ = run(broker, BUILD / "rpc", "call", "greeter", "greet", '["nobody"]')
        while code != 0 and process.poll() is None:
            code, _ = run(broker, BUILD / "rpc", "call", "greeter", "greet", '["nobody"]')
        yield process
    finally:
        process.kill()
        process.wait()


@pytest.mark.parametrize("name", ["greeter.c", "caller.c"])
def test_the_readme_shows_the_example(name):
    assert (ROOT / "rpclib/examples" / name).read_text() in (ROOT / "rpclib/README.md").read_text()


@pytest.mark.parametrize(
    "command, code, output",
    [
        (["caller"], 0, '"Hello, Ada!"\n'),
        (["rpc", "call", "greeter", "greet", '["Bob"]'], 0, '"Hello, Bob!"\n'),
        (["rpc", "call", "greeter", "greet", "[]", '{"name": "Eve"}'], 0, '"Hello, Eve!"\n'),
        (
            ["rpc", "call", "greeter", "greet"],
            1,
            '{"exc_type": "IncorrectSignature", "exc_path": "nameko.exceptions.IncorrectSignature", '
            "\"exc_args\": [\"greet() missing 1 required positional argument: 'name'\"], "
            "\"value\": \"greet() missing 1 required positional argument: 'name'\"}\n",
        ),
        (["rpc", "call", "greeter"], 2, ""),
        (["rpc", "call", "greeter", "greet", "{}"], 2, ""),
        (["rpc", "call", "nobody", "greet"], 1, ""),
        (["rpc", "publish", "nobody", "event", "1"], 1, ""),
    ],
)
def test_the_examples_run(broker, greeter, command, code, output):
    assert run(broker, BUILD / command[0], *command[1:]) == (code, output)


def errors_of_rpc(amqp_uri, *words, **settings):
    """(exit code, what it says beside its output): without LOG_LEVEL unless the test gives one."""
    environment = {name: value for name, value in os.environ.items() if not name.startswith("LOG_")}
    environment.update(settings, AMQP_URI=amqp_uri)
    done = subprocess.run([BUILD / "rpc", *words], env=environment, capture_output=True, timeout=TIMEOUT_S, check=False)
    return done.returncode, done.stderr.decode()


def test_rpc_says_nothing_beside_the_answer(broker, greeter):
    words = ("call", "greeter", "greet", '["Bob"]')
    assert errors_of_rpc(broker, *words) == (0, "")
    assert errors_of_rpc(broker, *words, LOG_LEVEL="") == (0, "")
    code, errors = errors_of_rpc(broker, *words, LOG_LEVEL="info")
    assert code == 0 and "connected to the broker" in errors


def test_rpc_says_why_there_is_no_answer():
    with socket.socket() as nobody:  # it does not listen, and nobody else gets its port
        nobody.bind(("127.0.0.1", 0))
        uri = f"amqp://127.0.0.1:{nobody.getsockname()[1]}"
        code, errors = errors_of_rpc(uri, "call", "greeter", "greet", RPC_TIMEOUT_MS="100")
    assert code == 1
    assert "cannot connect to the broker" in errors and "refused" in errors, errors
    assert errors.endswith("rpc: the broker cannot be reached\n"), errors
