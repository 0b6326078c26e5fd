"""Real servers are killed or stopped under load: nobody leaves, every answer is honest, nothing is lost or done twice."""
import pytest

from support.clock import RPC_TIMEOUT_SHORT_MS
from support.load import Load

pytestmark = pytest.mark.faults


@pytest.fixture(scope="module")
def robust(make_shop):
    return make_shop(rpc_timeout_ms=RPC_TIMEOUT_SHORT_MS).start()


def failed(attempt):
    return attempt.status != 200


@pytest.mark.parametrize("server", ["redis", "postgres", "rabbitmq"])
def test_a_server_is_killed_and_comes_back(servers, robust, server):
    pids = [program.process.pid for program in robust.programs]
    with Load(robust, robust.all("gateway")) as load:
        load.wait_for(20, "the load runs")
        with servers.killed(server):
            load.wait_for(4, f"orders fail without {server}", failed)
            robust.assert_running()
        load.wait_for(20, f"orders succeed again with {server}")
    robust.wait_working()
    robust.assert_running()
    assert [program.process.pid for program in robust.programs] == pids
    load.assert_honest()
    load.assert_invariants()


@pytest.mark.parametrize("server", ["redis", "postgres", "rabbitmq"])
def test_a_server_is_stopped_and_goes_on(servers, robust, server):
    """It does not refuse, it does not answer: only a deadline of our own tells."""
    with Load(robust, robust.all("gateway")) as load:
        load.wait_for(20, "the load runs")
        with servers.paused(server):
            load.wait_for(4, f"orders fail while {server} is stopped", failed)
            robust.assert_running()
        load.wait_for(20, f"orders succeed again with {server}")
    robust.wait_working()
    robust.assert_running()
    load.assert_honest()
    load.assert_invariants()
