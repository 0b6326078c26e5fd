#!/usr/bin/python3
"""Does the benchmark see what it must see?  A healthy shop passes; each kind of wrong is found; a stall is charged for.

    loadtest/test_measure.py [PYTEST-ARGUMENT...]     ends with "N passed, N failed"; BUILD_DIR names the build folder
"""
import argparse
import json
import os
import re
import shutil
import signal
import subprocess
import sys
import threading
import xml.dom.minidom
from pathlib import Path

import pytest

HERE = Path(__file__).resolve().parent
sys.path.insert(0, str(HERE))
sys.dont_write_bytecode = True

import bench as benchmark  # noqa: E402
import table  # noqa: E402
from measure import ceilings, figures, invariants, load, machine, peers, plots, processes, suite  # noqa: E402
from measure.report import Report  # noqa: E402
from measure.runs import ECHOES, flat_pair, one_shop  # noqa: E402
from measure.waiting import wait_until  # noqa: E402

PRODUCTS, ORDERS = 1000, 2000
RATE = 200
STALL_S = 0.5
WAIT_S = 10


@pytest.fixture(scope="module")
def bench(tmp_path_factory):
    with one_shop(tmp_path_factory.mktemp("bench"), "shop") as bench:
        yield bench


@pytest.fixture
def workload(bench, monkeypatch):
    """A shop just filled; what is broken in it does not take a minute to be found."""
    monkeypatch.setattr(invariants, "SETTLE_TIMEOUT_S", 3)
    return bench.fill(bench.shops[0], PRODUCTS, ORDERS)


@pytest.fixture(params=["wrk", "http_load"])
def generate(bench, request):
    return bench.generator.closed if request.param == "wrk" else bench.generator.closed_exact


def some_orders(bench, workload):
    result = bench.generator.closed_exact(workload, "post_order", 4, 1)
    assert load.faults(result) == []
    assert len(workload.ledger.ids) > 4
    return result


# ---- right answers ---------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("name", sorted(load.LOADS))
def test_a_healthy_shop_passes(bench, workload, generate, name):
    result = generate(workload, name, 4, 1)
    assert load.faults(result) == [] and result["answered"] > 0 and result["rate"] > 0
    assert 0 < result["p50_us"] <= result["p99_us"] <= result["max_us"]
    found = invariants.check(workload.shop, workload.ledger)
    assert found["acknowledged"] <= found["orders_made"]
    if name == "post_order":
        assert found["acknowledged"] >= result["answered"]


def test_a_constant_rate_is_kept(bench, workload):
    result = bench.generator.constant(workload, "get_product", 16, 2, RATE)
    assert load.faults(result) == [] and result["unsent"] == 0
    assert result["sent"] == 2 * RATE and result["offered"] == pytest.approx(RATE)


# ---- wrong answers ---------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("change", [("of the fleet", "of the fleet!"), ('"maximum_speed":5', '"maximum_speed":6')])
def test_another_text_is_a_wrong_answer(bench, workload, generate, change):
    numbers, request, status, answer = workload.templates["get_product"]
    assert change[0] in answer
    workload.templates["get_product"] = (numbers, request, status, answer.replace(*change))
    result = generate(workload, "get_product", 4, 1)
    assert result["wrong"] == result["answered"] > 0
    assert load.faults(result)


def test_another_status_is_a_wrong_answer(bench, workload, generate):
    numbers, request, _, answer = workload.templates["get_product"]
    workload.templates["get_product"] = (numbers, request, 201, answer)
    assert generate(workload, "get_product", 4, 1)["wrong"] > 0


def test_one_damaged_product_in_a_thousand_is_found(bench, workload, generate):
    with workload.shop.room.redis() as connection:
        connection.hset("products:bench-000000000500", "title", "another one")
    wrong = answered = 0
    while wrong == 0 and answered < 20 * PRODUCTS:  # enough of them to meet that one, however slow the machine is
        result = generate(workload, "get_product", 16, 1)
        wrong, answered = wrong + result["wrong"], answered + result["answered"]
    assert wrong > 0


def test_a_missing_order_is_a_wrong_answer(bench, workload, generate):
    workload.shop.room.query("DELETE FROM order_details WHERE order_id > 1000")
    workload.shop.room.query("DELETE FROM orders WHERE id BETWEEN 1001 AND %s", (ORDERS,))
    assert generate(workload, "get_order", 4, 1)["wrong"] > 0


def test_what_a_shop_must_hold_is_checked_before_it_is_learned(bench, workload):
    with workload.shop.room.redis() as connection:
        connection.hset(f"products:bench-{load.SAMPLE:012d}", "maximum_speed", "6")
    with pytest.raises(load.WrongAnswer):
        bench.workload(workload.shop, PRODUCTS, ORDERS)


# ---- invariants ------------------------------------------------------------------------------------------------------


def test_a_lost_order_is_found(bench, workload):
    some_orders(bench, workload)
    invariants.check(workload.shop, load.Ledger(PRODUCTS, ORDERS, 10**9, list(workload.ledger.ids)))
    lost = workload.ledger.ids[-1]
    ((product_id,),) = workload.shop.room.query("SELECT product_id FROM order_details WHERE order_id = %s", (lost,))
    workload.shop.room.query("DELETE FROM order_details WHERE order_id = %s", (lost,))
    workload.shop.room.query("DELETE FROM orders WHERE id = %s", (lost,))
    with workload.shop.room.redis() as connection:
        connection.hincrby(f"products:{product_id}", "in_stock", 1)  # the stock, too, as if it had never been
    with pytest.raises(invariants.Broken, match="INV-1"):
        invariants.check(workload.shop, workload.ledger)


def test_an_order_made_twice_is_found(bench, workload):
    some_orders(bench, workload)
    workload.ledger.ids.append(workload.ledger.ids[0])
    with pytest.raises(invariants.Broken, match="INV-2"):
        invariants.check(workload.shop, workload.ledger)


def test_more_orders_than_requests_are_found(bench, workload):
    some_orders(bench, workload)
    workload.ledger.posts_sent = 3
    workload.ledger.ids = workload.ledger.ids[:2]
    with pytest.raises(invariants.Broken, match="INV-2"):
        invariants.check(workload.shop, workload.ledger)


def test_one_piece_of_stock_too_few_is_found(bench, workload):
    some_orders(bench, workload)
    with workload.shop.room.redis() as connection:
        connection.hincrby("products:bench-000000000123", "in_stock", -1)
    with pytest.raises(invariants.Broken, match="INV-3"):
        invariants.check(workload.shop, workload.ledger)


def test_an_event_that_does_not_leave_is_found(bench, workload):
    workload.shop.room.query(
        "INSERT INTO order_outbox (event_type, payload) VALUES ('nobody_listens', '{}')"
    )
    try:
        with pytest.raises(invariants.Broken, match="INV-4"):
            invariants.check(workload.shop, workload.ledger)
    finally:
        workload.shop.room.query("DELETE FROM order_outbox")


# ---- stalls ----------------------------------------------------------------------------------------------------------


def test_a_stall_is_charged_for_all_who_came_meanwhile(bench, workload):
    """A quarter of the requests of two seconds were due while nobody answered: the open loop says so."""
    pid = workload.shop.pids("products")[0]
    timers = [
        threading.Timer(STALL_S, os.kill, (pid, signal.SIGSTOP)),
        threading.Timer(2 * STALL_S, os.kill, (pid, signal.SIGCONT)),
    ]
    for timer in timers:
        timer.start()
    try:
        result = bench.generator.constant(workload, "get_product", 4, 4 * STALL_S, RATE)
    finally:
        for timer in timers:
            timer.join()
    assert load.faults(result) == []
    assert result["max_us"] >= STALL_S * 1e6 * 0.8
    assert result["p90_us"] >= STALL_S * 1e6 * 0.2, "four connections waited; the others who came are charged for, too"
    assert result["backlog_max"] >= RATE * STALL_S * 0.5


# ---- runs that do not count ------------------------------------------------------------------------------------------


def test_a_run_that_went_wrong_does_not_count_and_the_next_one_does(bench, workload):
    numbers, request, status, answer = workload.templates["get_product"]
    workload.templates["get_product"] = (numbers, request, 201, answer)
    bench.closed(workload, "get_product", 4, "tried", 1)
    assert ("tried", 4) not in bench.measured and len(bench.measured.worthless) == 1
    workload.templates["get_product"] = (numbers, request, status, answer)
    bench.closed(workload, "get_product", 4, "tried", 1)
    assert len(bench.measured.values("tried", 4, "rate")) == 1 and len(bench.measured.worthless) == 1


def test_a_worthless_run_keeps_its_place_and_is_a_target_missed():
    report = a_report()
    report.measured.results["get_product", 64][0] = {"worthless": "3 wrong"}
    report.measured.results["get_product", 64][1]["rate"] = 3200
    assert report.measured.ratio("get_product", 64, "ceiling", 64) == pytest.approx((3200 / 4000 + 1100 / 4400) / 2)
    assert [line.met for line in report.lines() if line.what.startswith("runs with")] == [False]


# ---- ceilings --------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("what", sorted(ECHOES))
def test_an_echo_comes_back(bench, what):
    echo = ceilings.Echo(*ECHOES[what], bench.shops[0].room, bench.build_dir, bench.directory)
    try:
        result = echo.start().measure(8, 1)
        bindings = bench.servers.rabbitmqctl("-q", "list_bindings", "-p", "shop", "source_name", "routing_key")
    finally:
        echo.stop()
    assert result["rate"] > 0 and 0 < result["p50_us"] <= result["p99_us"]
    if what == "ceiling nameko":
        assert "nameko-rpc\tceiling.*" in bindings


def test_products_own_commands_are_taken_down(bench, workload):
    room = workload.shop.room
    with ceilings.Commands(room, bench.directory) as commands:
        some_orders(bench, workload)
        bench.generator.closed_exact(workload, "get_product", 1, 1)
        invariants.check(workload.shop, workload.ledger)
    found = commands.read()
    assert found["exists"] == ["EXISTS", "products:bench-__rand_int__"]
    assert found["hmget"][:2] == ["HMGET", "products:bench-__rand_int__"]
    order, product = found["evalsha"][3:5]
    assert order == "airship:applied:__rand_int__" and product.startswith("products:bench-0")
    with room.redis() as redis:
        before = redis.hget(product, "in_stock")
        assert ceilings.redis_commands(room, found["evalsha"], True, 0.01, PRODUCTS)["rate"] > 0
        assert int(redis.hget(product, "in_stock")) < int(before), "it was lowered, not looked for"


# ---- peers -----------------------------------------------------------------------------------------------------------


def asked_for(**options):
    return argparse.Namespace(**{"parts": ["shop", "peer"], "only": None, "peer": [], **options})


@pytest.fixture
def without_node(tmp_path, monkeypatch):
    """A machine that has neither Node nor npm, and Moleculer for the only peer."""
    for tool in ("bash", "timeout"):
        (tmp_path / tool).symlink_to(shutil.which(tool))
    monkeypatch.setenv("PATH", str(tmp_path))
    monkeypatch.setattr(benchmark, "PEERS", {"moleculer": peers.MOLECULER})


def test_a_peer_that_is_not_here_is_left_out_and_that_is_said(without_node, capfd):
    options = asked_for()
    assert benchmark.find_peers(options) == []
    said = capfd.readouterr()
    assert "node is not here" in said.err and "it is not measured" in said.out
    assert options.parts == ["shop"]


@pytest.mark.parametrize("options", [{"peer": ["moleculer"]}, {"only": ("peer",), "parts": ["peer"]}])
def test_a_peer_that_was_asked_for_by_name_must_be_here(without_node, options):
    with pytest.raises(RuntimeError, match="there is no"):
        benchmark.find_peers(asked_for(**options))


def test_the_other_peers_are_measured_without_one(without_node, monkeypatch):
    here = peers.Peer("here", "one that is here", "true", "echo here 1.2", (), {}, True)
    monkeypatch.setattr(benchmark, "PEERS", {"moleculer": peers.MOLECULER, "here": here})
    options = asked_for(only=("peer",), parts=["peer"])
    assert benchmark.find_peers(options) == [here] and options.parts == ["peer"]
    assert peers.versions(here) == {"here": "1.2"}


def test_moleculer_is_installed_in_exact_versions_from_npm():
    folder = peers.MOLECULER_SHOP.parent
    wanted = json.loads((folder / "package.json").read_text())["dependencies"]
    locked = json.loads((folder / "package-lock.json").read_text())["packages"]
    assert "moleculer" in wanted
    for name, version in wanted.items():
        assert re.fullmatch(r"\d+\.\d+\.\d+", version) and locked[f"node_modules/{name}"]["version"] == version
    for name, package in locked.items():
        assert "resolved" not in package, "it comes from the registry that npm is set to, whichever that is"
        assert name == "" or package["integrity"].startswith("sha512-")


@pytest.mark.parametrize(
    ("peer", "name", "connections", "times", "target", "met"),
    [
        ("moleculer", "get_product", 64, 3.3, ">= x 3.3", True),
        ("moleculer", "get_product", 64, 3.2, ">= x 3.3", False),
        ("moleculer", "post_order", 64, 4.5, ">= x 4.5", True),
        ("moleculer", "post_order", 64, 4.4, ">= x 4.5", False),
        ("moleculer", "get_order", 64, 4.5, ">= x 4.5", True),
        ("moleculer", "get_order", 64, 4.4, ">= x 4.5", False),
        ("moleculer", "get_order", 1, 1, "", None),
        ("moleculer", "mixed", 64, 1, "", None),
        ("nameko", "get_order", 64, 49, ">= x 50", False),
        ("nameko", "get_order", 1, 10, ">= x 10", True),
    ],
)
def test_a_peers_line_says_how_many_times_its_rate_and_whether_that_is_enough(peer, name, connections, times, target, met):
    report = a_report()
    report.connections = [1, 64]
    for rate in (1000, 2000, 4000):  # what the machine did meanwhile falls out
        report.measured.add(f"{peer} {name}", connections, {"rate": rate})
    report.measured.results[name, connections] = [{**run, "rate": rate * times} for run, rate in
                                                  zip(report.measured.results["get_product", 64], (1000, 2000, 4000))]
    (line,) = [line for line in report.lines() if f" against {peers.PEERS[peer].title}, " in line.what]
    assert line.what == f"{load.TITLES[name]} against {peers.PEERS[peer].title}, c={connections}"
    assert (line.target, line.met) == (target, met)


def test_a_peer_without_one_run_that_counts_beside_ours_is_not_measured():
    report = a_report()
    for run in ({"worthless": "3 wrong"}, {"worthless": "3 wrong"}, {"rate": 1000}):
        report.measured.add("moleculer get_product", 64, run)
    report.measured.results["get_product", 64][2] = {"worthless": "1 wrong"}
    (line,) = [line for line in report.lines() if f" against {peers.MOLECULER.title}, " in line.what]
    assert (line.figure, line.met) == ("not measured", None)


# ---- figures ---------------------------------------------------------------------------------------------------------


def test_a_share_is_the_median_of_the_repetitions_own():
    measured = figures.Measurements()
    for rate, ceiling in ((50, 100), (30, 50), (8, 80)):
        measured.add("get_product", 64, {"rate": rate})
        measured.add("ceiling", 64, {"rate": ceiling})
    assert measured.ratio("get_product", 64, "ceiling", 64) == 0.5
    line = figures.share_line(measured, "get_product", "GET", 0.51)
    assert line.met is False and line.share == "0.50"
    assert figures.share_line(measured, "get_product", "GET", 0.5).met is True


def test_where_a_median_lies():
    assert figures.median_interval([3]) == (3, 3)
    assert figures.median_interval([5, 1, 3]) == (1, 5)
    assert figures.median_interval(range(100)) == (40, 59)


def test_a_spread_is_half_of_the_range():
    assert figures.spread([90, 100, 110]) == pytest.approx(0.1)
    assert figures.spread([0, 0]) == 0


def test_a_chart_is_a_document():
    chart = plots.Chart("a < b & c", "x", "y", [1, 8, 64])
    assert plots.svg(chart) is None
    chart.add("one", [(0, 10.0, 9.0, 11.0), (2, 30.0, 20.0, 40.0)])
    for chart.logarithmic in (False, True):
        document = xml.dom.minidom.parseString(plots.svg(chart))
        assert len(document.getElementsByTagName("circle")) == 2


def test_processors_are_kept_awake_at_one_connection_by_who_gives_way_to_everybody(bench):
    wanted = {frozenset({processor}) for processor in os.sched_getaffinity(0)}
    before = processes.tree([os.getpid()])

    def keepers():
        idle = [pid for pid in processes.tree([os.getpid()]) - before if os.sched_getscheduler(pid) == os.SCHED_IDLE]
        return {frozenset(os.sched_getaffinity(pid)): pid for pid in idle}

    with bench.awake(1):
        wait_until(lambda: set(keepers()) == wanted, "a keeper on each processor", WAIT_S)
        pids = set(keepers().values())
    with bench.awake(8):
        assert keepers() == {}, "there is work enough"
    wait_until(lambda: not any(Path(f"/proc/{pid}").exists() for pid in pids), "no keeper left", WAIT_S)


def a_report():
    measured = figures.Measurements()
    cpu_us = {"gateway": 10, "products": 5, "orders": 0, "rabbitmq": 60, "redis": 5, "postgres": 0, "generator": 20}
    for rate in (900, 1000, 1100):
        measured.add("ceiling", 64, {"rate": 4 * rate, "p50_us": 100})
        measured.add("ceiling nameko", 64, {"rate": 2 * rate, "p50_us": 200})
        measured.add("get_product", 64, {"rate": rate, "p50_us": 300, "p99_us": 900, "cpu_us": cpu_us})
    described = {"processor": "one", "processors": 2, "memory_mib": 2048, "kernel": "6", "commit": "c", "versions": {}, "build": {}}
    for number in range(40):
        measured.add("get_product watched", 64, {"rate": 990 + number % 3, "cpu_us": {**cpu_us, "gateway": 11}})
        measured.add("get_product unwatched", 64, {"rate": 1000 + number % 3, "cpu_us": cpu_us})
    for axis, rates in (("products", (900, 990)), ("orders", (800, 1100))):
        for what, two in zip(flat_pair("get_order", axis, 10_000), (rates, (1000, 1100))):
            for rate in two:
                measured.add(what, 64, {"rate": rate})
    report = Report(measured, [64], {"runs": 3, "answers": 3000, "orders": 0})
    report.sizes = [1000, 10_000]
    report.machine, report.durability = described, {"postgres fsync": "on"}
    return report


def test_a_result_can_be_read_again(tmp_path):
    report = a_report()
    path = tmp_path / "result.json"
    report.write(path, seconds=60)
    assert Report.from_json(json.loads(path.read_text())).table() == report.table()
    written = path.with_suffix(".md").read_text()
    assert "| GET /products/{id}, c=64 | >= 0.50 | 1,000/s ±10 % | 4,000/s ±10 % | 0.25 | **missed** |" in written
    assert "| GET /products/{id} | 1 + 0 | 60 us | 20,000/s | 1,000/s | 0.05 |" in written
    flat = "| GET /orders/{id}, one line: 10,000"
    assert f"{flat} products against 1,000 | within 5 % | 945/s ±5 % | 1,050/s ±5 % | -10.0 % (-10.0 to -10.0) | **missed** |" in written
    assert f"{flat} orders against 1,000 | within 10 % | 950/s ±16 % | 1,050/s ±5 % | -10.0 % (-20.0 to +0.0) | not decided |" in written
    assert "| cost of metrics, logs and trace context | <= 3 % | 991/s ±0 % | 1,001/s ±0 % | +1.0 % (+1.0 to +1.0) | met |" in written
    assert "| ... of all processors' time | 101.0 us | 100.0 us | +1.0 % (+1.0 to +1.0) |  |" in written
    assert "<circle" in (tmp_path / "result-flatness.svg").read_text()
    assert [line.of_wire for line in report.lines() if line.what.startswith("GET")][0] == "0.50"


def test_two_results_agree_where_their_ranges_overlap(tmp_path):
    def result(name, rates, ceiling):
        measured = figures.Measurements()
        for rate in rates:
            measured.add("get_product", 64, {"rate": rate})
            measured.add("ceiling", 64, {"rate": ceiling})
        path = tmp_path / f"{name}.json"
        path.write_text(json.dumps({"measurements": measured.as_json()}))
        return path

    def compared(one, other):
        done = subprocess.run([sys.executable, str(HERE / "agree.py"), str(one), str(other)], capture_output=True, text=True)
        return done.returncode, done.stdout + done.stderr

    first = result("first", (900, 1000, 1100), 2000)
    assert "rates: 2 of 2 agree; shares of the ceiling: 1 of 1" in compared(first, first)[1]
    code, text = compared(first, result("slower", (500, 520, 540), 1000))  # the machine was half as fast
    assert code == 0 and "rates: 0 of 2 agree; shares of the ceiling: 1 of 1" in text and "0.52" in text
    assert "shares of the ceiling: 0 of 1" in compared(first, result("worse", (500, 520, 540), 2000))[1]
    assert compared(first, tmp_path / "none.json")[0] == 1
    other = tmp_path / "other.json"
    other.write_text(json.dumps({"measurements": []}))
    assert compared(first, other) == (1, f"agree: {first} and {other} have no figure in common\n")


def test_the_tables_go_between_the_marks_of_a_file(tmp_path):
    a_report().write(tmp_path / "result.json", seconds=60)
    page = tmp_path / "page.md"
    page.write_text(f"before\n{table.BEGIN}\nold\n{table.END}\nafter\n")
    command = [sys.executable, str(HERE / "table.py"), str(tmp_path / "result.json"), "--into", str(page)]
    for _ in range(2):  # twice is once
        assert subprocess.run(command, capture_output=True).returncode == 0
    text = page.read_text()
    assert text.startswith("before\n") and text.endswith("\nafter\n") and "old" not in text
    assert text.count("Against the targets") == 1
    page.write_text("no marks\n")
    assert subprocess.run(command, capture_output=True).returncode == 1
    assert page.read_text() == "no marks\n"


if __name__ == "__main__":
    sys.exit(suite.run(__file__, sys.argv[1:]))
