"""The checker of `make chaos`, by itself: a clean history passes, and each kind of damage that is planted is found."""
import copy
import json
import os
import re
import subprocess
import sys
from contextlib import nullcontext
from itertools import islice
from pathlib import Path
from types import SimpleNamespace

import pytest

CHECKOUT = Path(__file__).resolve().parents[1]
sys.path.insert(0, str(CHECKOUT / "chaos"))

import chaos  # noqa: E402
from harness import limits, report  # noqa: E402
from harness.checker import CODES, DeadLetter, Evidence, INVARIANTS, Probe, Window  # noqa: E402
from harness.checker import check, fault_of_answer, looked_at, outcome_of  # noqa: E402
from harness.faults import CATALOGUE, PROGRAMS, server_frozen  # noqa: E402
from harness.history import FAIL, HTTP, INFO, OK, RPC, Op  # noqa: E402
from harness.nemesis import Nemesis, first_run_of_success, goes_on, least_faults, recovery_s, schedule  # noqa: E402
from harness.system import System  # noqa: E402

ORDERS = 10
STOCK = 1000
EVENTS = "evt-orders-order_created--products.handle_order_created"


def dead_letter(body, attempts=1):
    return DeadLetter(body, "it is no JSON", attempts, EVENTS)


class World:
    """A history and what the system held at its end, in step with each other."""

    def __init__(self):
        self.ops = []
        self.evidence = Evidence(
            stock={"ship": STOCK},
            stock_at_first={"ship": STOCK},
            products={"ship": {"id": "ship", "title": "A ship"}},
            products_expected={"ship": {"id": "ship", "title": "A ship"}},
            baseline={"orders": (50_000, 30)},
            at_rest={"orders": (52_000, 31)},
            in_flight={"orders-1 orders_in_flight": 0.0},
            recoveries=[("F1 broker killed", 100.0, 0.4)],
            afterwards=0.0,
            afterwards_until=1000.0,
            queues={"rpc-orders": 0, "products.dead-letters": 1},
            poison={b"{": True},
            dead_letters=[dead_letter(b"{")],
        )
        for marker in range(1, ORDERS + 1):
            self.order(marker)

    def ask(self, kind, status, answer, by=HTTP, took_s=0.1, **about):
        number = len(self.ops)
        op = Op(number, kind, by, float(number), ended=number + took_s, sent=True, status=status, answer=answer, **about)
        op.outcome = outcome_of(op)
        self.ops.append(op)
        return op

    def lines(self, marker, quantity=2):
        return [{"product_id": "ship", "price": f"{marker}.00", "quantity": quantity}]

    def attempt(self, marker, status, answer, **about):
        about.setdefault("key", f"key-{marker}")
        return self.ask(about.pop("kind", "order"), status, answer, order=marker, lines=self.lines(marker), **about)

    def store(self, order_id, marker, quantity=2):
        self.evidence.orders[order_id] = [("ship", f"{marker}.00", quantity)]
        self.evidence.stock["ship"] -= quantity

    def order(self, marker):
        self.store(100 + marker, marker)
        return self.attempt(marker, 200, {"id": 100 + marker})

    def error(self, marker, status, **about):
        code = {503: "SERVICE_UNAVAILABLE", 504: "OUTCOME_UNKNOWN"}[status]
        return self.attempt(marker, status, {"error": code, "message": ""}, **about)

    def get_order(self, marker, shown):
        lines = self.lines(shown)
        answer = {"id": 100 + shown, "order_details": [{**line, "product": {"id": "ship"}} for line in lines]}
        return self.ask("get-order", 200, answer, asked={"id": 100 + marker}, lines=self.lines(marker))

    @property
    def broken(self):
        return sorted((name for name, found in check(self.ops, self.evidence).items() if found), key=lambda name: int(name[4:]))

    @property
    def violations(self):
        return [str(violation) for found in check(self.ops, self.evidence).values() for violation in found]


@pytest.fixture
def world():
    return World()


# ---- what is clean ---------------------------------------------------------------------------------------------------


def test_a_clean_history_passes(world):
    world.get_order(3, 3)
    world.ask("get-product", 200, {"id": "ship", "title": "A ship", "in_stock": 4}, asked={"id": "ship", "title": "A ship"})
    world.ask("delete-product", 204, None, asked={"id": "other"})
    assert world.violations == []


def test_an_unknown_outcome_may_be_either(world):
    """Without a key nobody can ask again: both the made order and the one that was not made are right."""
    for marker in (20, 21):
        op = world.attempt(marker, None, None, key=None, by=RPC, lost="timeout")
        op.outcome = INFO
    world.store(120, 20)
    world.evidence.afterwards = None
    assert world.violations == []


def test_errors_and_retries_that_told_the_truth_pass(world):
    world.evidence.afterwards = None
    world.error(20, 504)
    world.error(20, 503)
    world.order(20)
    world.attempt(20, 200, {"id": 120}, kind="replay")
    world.attempt(20, 200, {"id": 120}, kind="twin")
    assert world.violations == []


def test_a_hurt_gateway_may_lose_requests(world):
    world.evidence.afterwards = None
    op = world.attempt(20, None, None, key=None, lost="ConnectionResetError")
    world.evidence.injured.append(Window("gateway-1", op.began - 1, op.ended))
    assert world.violations == []


# ---- what is planted -------------------------------------------------------------------------------------------------


def test_a_lost_order(world):
    del world.evidence.orders[105]
    world.evidence.stock["ship"] += 2
    assert world.broken == ["INV-1"]


def test_an_order_that_lost_a_line(world):
    world.evidence.orders[105] = []
    world.evidence.stock["ship"] += 2
    assert world.broken == ["INV-1"]


def test_a_lost_product(world):
    world.evidence.products["ship"] = None
    assert world.broken == ["INV-1"]


def test_a_doubled_order_under_one_key(world):
    world.store(300, 5)
    assert world.broken == ["INV-2"]


def test_an_order_that_nobody_asked_for(world):
    world.store(300, 77)
    assert world.broken == ["INV-2"]


def test_a_doubled_stock_effect(world):
    world.evidence.stock["ship"] -= 2
    assert world.broken == ["INV-3"]


def test_a_stock_effect_that_is_missing(world):
    world.evidence.stock["ship"] += 2
    assert world.broken == ["INV-3"]


def test_a_stock_that_was_set_back(world):
    world.evidence.stock["ship"] = STOCK
    assert world.broken == ["INV-3"]


@pytest.mark.parametrize(
    "plant",
    [
        lambda evidence: setattr(evidence, "outbox", 1),
        lambda evidence: evidence.queues.update({EVENTS: 1}),
        lambda evidence: evidence.queues.update({f"{EVENTS}.retry-1000": 1}),
        lambda evidence: evidence.dead_letters.append(dead_letter(b'{"order": {"id": 105}}', attempts=6)),
        lambda evidence: setattr(evidence.dead_letters[0], "cause", None),
        lambda evidence: setattr(evidence.dead_letters[0], "attempts", 0),
        lambda evidence: setattr(evidence.dead_letters[0], "queue", None),
        lambda evidence: evidence.dead_letters.clear(),
    ],
    ids=[
        "outbox",
        "event queue",
        "retry queue",
        "an order's event is a dead letter",
        "a dead letter without a cause",
        "a dead letter that nobody tried",
        "a dead letter from nowhere",
        "lost poison",
    ],
)
def test_an_event_that_did_not_arrive(world, plant):
    plant(world.evidence)
    assert world.broken == ["INV-4"]


def test_poison_that_nobody_confirmed_may_be_lost(world):
    world.evidence.poison[b"never confirmed"] = False
    assert world.violations == []


def test_a_swapped_answer_of_an_order(world):
    world.get_order(3, 4)
    assert world.broken == ["INV-5"]


def test_an_answer_with_another_orders_lines(world):
    op = world.get_order(3, 4)
    op.answer["id"] = 103
    assert world.broken == ["INV-5"]


def test_a_swapped_answer_of_a_product(world):
    world.ask("get-product", 200, {"id": "other", "title": "Other"}, asked={"id": "ship", "title": "A ship"})
    assert world.broken == ["INV-5"]


def test_swapped_answers_of_two_orders_that_were_made(world):
    first, second = world.ops[2], world.ops[3]
    first.answer, second.answer = second.answer, first.answer
    assert world.broken == ["INV-1"], "each has another order's lines"


def test_two_requests_told_the_same_order(world):
    world.attempt(20, 200, {"id": 105})
    assert "INV-5" in world.broken


def test_a_list_of_mixed_orders(world):
    lines = world.lines(3) + world.lines(4)
    world.ask("list-orders", 200, [{"id": 103, "order_details": lines}], asked={"after": 0, "limit": 5})
    assert world.broken == ["INV-5"]


def test_a_list_that_shows_an_order_as_another(world):
    world.ask("list-orders", 200, [{"id": 103, "order_details": world.lines(4)}], asked={"after": 0, "limit": 5})
    assert world.broken == ["INV-5"]


def test_a_hang(world):
    op = world.attempt(20, None, None, key=None, lost="TimeoutError", took_s=limits.HANG_S)
    op.outcome = INFO
    world.evidence.afterwards = None
    assert world.broken == ["INV-5"]


def test_a_request_that_never_ended(world):
    op = world.order(20)
    op.ended = op.status = op.answer = op.outcome = None
    world.evidence.afterwards = None
    assert "INV-5" in world.broken


def test_a_late_answer(world):
    world.ops[4].ended += limits.DEADLINE_S
    assert world.broken == ["INV-5"]


def test_a_connection_lost_while_nobody_hurt_the_gateway(world):
    world.evidence.afterwards = None
    world.attempt(20, None, None, key=None, lost="ConnectionResetError")
    assert world.broken == ["INV-5"]


@pytest.mark.parametrize("status", [500, 404, 400, 422, 201])
def test_an_undocumented_status(world, status):
    world.evidence.afterwards = None
    world.attempt(20, status, {"error": "UNEXPECTED_ERROR", "message": ""}, key=None)
    assert "INV-5" in world.broken


def test_an_undocumented_error_of_a_service(world):
    op = world.attempt(20, "UnexpectedError", {"exc_type": "UnexpectedError"}, key=None, by=RPC)
    assert fault_of_answer(op)
    assert world.broken == ["INV-5"]


def test_an_error_in_another_shape(world):
    world.evidence.afterwards = None
    world.attempt(20, 503, {"oops": 1}, key=None)
    assert world.broken == ["INV-5"]


def test_a_timeout_that_says_read_for_a_change(world):
    world.evidence.afterwards = None
    world.attempt(20, 504, {"error": "TIMEOUT", "message": ""}, key=None)
    assert world.broken == ["INV-5"]


@pytest.mark.parametrize("seconds", [None, limits.RECOVERY_S + 1])
def test_a_fault_that_is_not_recovered_from(world, seconds):
    world.evidence.recoveries.append(("F12 link cut", 3.0, seconds))
    assert world.broken == ["INV-6"]


def test_errors_after_all_is_healed(world):
    world.error(20, 503, key=None)
    assert world.broken == ["INV-6"]


@pytest.mark.parametrize("weight", [(52_000 * 3, 31), (52_000, 31 + limits.DESCRIPTORS_EXTRA)], ids=["memory", "descriptors"])
def test_something_that_grew(world, weight):
    world.evidence.at_rest["orders"] = weight
    assert world.broken == ["INV-7"]


def test_work_that_never_ends(world):
    world.evidence.in_flight["orders-1 orders_in_flight"] = 1.0
    assert world.broken == ["INV-7"]


def test_requests_left_in_a_queue(world):
    world.evidence.queues["rpc-orders"] = 2
    assert world.broken == ["INV-7"]


@pytest.mark.parametrize("refusals", [[503], [503, 503]])
def test_a_refused_order_that_was_made(world, refusals):
    world.evidence.afterwards = None
    for status in refusals:
        world.error(20, status, key=None)
    world.store(120, 20)
    assert world.broken == ["INV-8"]


def test_a_reused_key_that_made_an_order(world):
    world.attempt(20, 422, {"error": CODES[422][0], "message": ""}, kind="reuse", key="key-5")
    world.store(120, 20)
    assert world.broken == ["INV-8"]


def test_a_key_that_tells_two_truths(world):
    world.attempt(5, 200, {"id": 104}, kind="replay")
    assert "INV-8" in world.broken


def test_a_key_that_never_tells(world):
    world.evidence.afterwards = None
    world.error(20, 504)
    assert world.broken == ["INV-8"]


def test_reports_and_unexpected_ends(world):
    world.evidence.reports.append("orders-1: ERROR: AddressSanitizer: heap-use-after-free")
    world.evidence.exits.append((4.0, "orders-1 ended by itself with -11"))
    assert world.broken == ["INV-9"]
    assert len(world.violations) == 2


def probes(path, status, program="orders-1", began=10.0):
    return [Probe(program, path, began, began + 0.1, status)]


def test_liveness_that_flaps(world):
    world.evidence.probes += probes("/healthz", 503)
    assert world.broken == ["INV-10"]
    world.evidence.injured.append(Window("orders-1", 9.0, 11.0))
    assert world.violations == []


def test_readiness_that_lies(world):
    world.evidence.probes += probes("/readyz", 200)
    assert world.violations == []
    world.evidence.unready.append(Window("orders-1", 9.0, 11.0))
    assert world.broken == ["INV-10"]


def test_readiness_that_does_not_come_back(world):
    world.evidence.probes += probes("/readyz", 503)
    assert world.violations == []
    world.evidence.calm.append(Window("*", 9.0, 11.0))
    assert world.broken == ["INV-10"]


def test_an_invariant_without_anything_to_break(world):
    """It has neither passed nor failed; what was broken all the same has."""
    rows = [{"fault": "F1 broker killed", "failure": None}]

    def judged():
        found, counts = check(world.ops, world.evidence), looked_at(world.ops, world.evidence)
        return report.without_anything(found, counts), report.count(rows, found, counts, least=1)

    assert judged() == (["INV-8", "INV-10"], (8, 0)), "nothing was refused, and nobody asked for readiness"
    world.evidence.afterwards = None
    world.error(20, 503)
    world.order(20)
    world.evidence.probes += probes("/healthz", 200)
    assert judged() == ([], (10, 0))
    world.evidence.recoveries.clear()
    assert judged() == (["INV-6"], (9, 0))
    world.evidence.orders.clear()
    assert judged()[0] == ["INV-2", "INV-4", "INV-6"], "INV-1 and INV-3 are broken"


def test_readiness_that_says_nothing_is_not_counted(world):
    world.evidence.probes += probes("/readyz", 200)
    assert looked_at(world.ops, world.evidence)["INV-10"][0] == (0, "probes"), "neither calm nor certainly unready"
    world.evidence.calm.append(Window("*", 9.0, 11.0))
    assert looked_at(world.ops, world.evidence)["INV-10"][0] == (1, "probes")


# ---- its parts -------------------------------------------------------------------------------------------------------


def test_every_invariant_has_a_plant():
    planted = Path(__file__).read_text()
    assert all(f'"{name}"' in planted for name in INVARIANTS)


def test_outcomes():
    def outcome(kind, status, sent=True):
        return outcome_of(Op(1, kind, HTTP, 0.0, status=status, sent=sent))

    assert [outcome("order", status) for status in (200, 503, 404, 504, None)] == [OK, FAIL, FAIL, INFO, INFO]
    assert outcome("order", None, sent=False) == FAIL
    assert outcome("reuse", 422) == OK and outcome("reuse", 200) == FAIL
    assert outcome("order", "OutcomeUnknown") == INFO and outcome("order", "ServiceUnavailable") == FAIL


def test_the_schedule_comes_from_the_seed_alone():
    def rounds(seed):
        return [[str(one) + f"{one.after_s}{one.lasts_s}" for one in planned] for planned in islice(schedule(seed), 200)]

    assert rounds(7) == rounds(7)
    assert rounds(7) != rounds(8)
    assert all(1 <= len(planned) <= 2 for planned in rounds(7))


def test_overlapping_faults_concern_different_things():
    for planned in islice(schedule(3), 500):
        concerned = [one.fault.concerns for one in planned]
        assert len(set(concerned)) == len(concerned)
        assert len(concerned) == 1 or "everything" not in concerned


def test_recovery_begins_with_the_first_request_of_a_run():
    world = World()
    world.ops = []
    for _ in range(3):
        world.error(1, 503)
    first = world.order(1)
    for marker in range(2, limits.RUN_OF_SUCCESS):
        world.order(marker)
    assert first_run_of_success(world.ops) is None
    world.order(99)
    assert first_run_of_success(world.ops) == first.began
    broken = copy.deepcopy(world.ops)
    broken[5].outcome, broken[5].status = FAIL, 503
    assert first_run_of_success(broken) is None


def test_an_instance_that_stays_away_is_not_recovered_from():
    assert recovery_s(healed=10.0, works=10.5, ready=12.0) == 0.5
    late = 10.0 + limits.RECOVERY_S + 1
    assert recovery_s(healed=10.0, works=10.5, ready=late) > limits.RECOVERY_S


@pytest.mark.parametrize(
    "now_s, count, expected",
    [(0, 0, True), (179, 40, True), (180, 12, False), (180, 11, True), (539, 11, True), (540, 11, False)],
)
def test_a_run_goes_on_until_it_has_faults_enough(now_s, count, expected):
    assert (limits.LONGER_AT_MOST, least_faults(180)) == (3, 12)
    assert goes_on(now_s, 180, count, least_faults(180)) is expected


def test_a_short_run_has_one_fault_at_least():
    assert least_faults(1) == 1


def test_faults_that_lack_what_they_need_end_the_run():
    stage = SimpleNamespace(system=SimpleNamespace(lacks={"file systems": "not run as root"}))
    nemesis = Nemesis(stage, 1, ["F16"], print)
    nemesis.run(seconds=600, least=1)
    assert nemesis.struck == []


def test_too_few_faults_are_a_failure(world, capsys):
    found, counts = check(world.ops, world.evidence), looked_at(world.ops, world.evidence)
    rows = [{"fault": "F1 broker killed", "failure": None}, {"fault": "F16 WAL disk full", "failure": None}]
    assert report.count(rows, found, counts, least=2) == (8, 0)
    assert capsys.readouterr().out == ""
    assert report.count(rows, found, counts, least=3) == (8, 1)
    assert "too few faults to say anything: 2, and 3 is the least" in capsys.readouterr().out
    rows[1]["failure"] = "it did not come"
    assert report.count(rows, found, counts, least=2) == (8, 2), "one that could not be brought about is none"


def test_the_summary_says_what_a_run_does_not_prove(tmp_path):
    about = {"seed": 7, "seconds": 60, "sanitized": False, "requests": {"http order": {"ok": 5}}}
    row = {"fault": "F1 broker killed", "failure": None, "recovery_s": 1, "lasted_s": 1, "worst_s": 1, "ok": 5, "fail": 0, "info": 0}
    verdicts = {"INV-1": [], "INV-4": [], "INV-5": [{"text": "late", "at": None}]}
    document = {**about, "faults": [row], "invariants": verdicts, "nothing_to_look_at": ["INV-4"], "least_faults": 4}
    (tmp_path / "report.json").write_text(json.dumps(document))
    command = [sys.executable, CHECKOUT / "chaos" / "summary.py", tmp_path]
    printed = subprocess.run(command, capture_output=True, text=True, timeout=60, check=True).stdout
    assert "| 1 of 3, INV-5; nothing to look at: INV-4; too few faults |" in printed


@pytest.mark.parametrize(
    "server, alone, labels",
    [
        ("rabbitmq", True, PROGRAMS),
        ("rabbitmq", False, PROGRAMS),
        ("postgres", True, ("orders-1", "orders-2")),
        ("postgres", False, None),
        ("redis", True, ("products-1", "products-2")),
        ("redis", False, None),
    ],
)
def test_who_is_not_ready_when_a_server_is_frozen(server, alone, labels):
    asked = []
    servers = SimpleNamespace(paused=lambda name: nullcontext())
    system = SimpleNamespace(servers=servers, expect_unready=lambda began, ended, *labels: asked.append(labels))
    with server_frozen(SimpleNamespace(system=system, alone=alone), server):
        assert asked == []
    assert asked == ([labels] if labels else [])


def test_a_program_that_is_hurt_hears_later_of_what_is_broken():
    system = System.__new__(System)
    system.injured, system.unready = [Window("orders-1", 5, 8), Window("orders-2", 9, float("inf"))], []
    system.expect_unready(1, 20, "orders-1", "orders-2", "gateway-1")
    lag = limits.READY_LAG_S
    assert system.unready == [Window("orders-1", 8 + lag, 20), Window("gateway-1", 1 + lag, 20)]
    system.expect_unready(1, 1 + lag, "products-1")
    assert len(system.unready) == 2, "it need not have heard of it"


def test_the_table_of_faults_is_true():
    """What it says is proven here can be struck, and the tests that it names are there."""
    rows = re.findall(r"^\| (F[\d, F]+) \| .* \| (.*) \|$", (CHECKOUT / "chaos" / "README.md").read_text(), re.M)
    proofs = {fault: proof for ids, proof in rows for fault in ids.split(", ")}
    assert list(proofs) == [f"F{number}" for number in range(1, 37)]
    assert {fault.id for fault in CATALOGUE} == {fault for fault, proof in proofs.items() if proof.startswith("here")}
    for name in re.findall(r"`([\w/]+\.(?:py|c))`", " ".join(proofs.values())):
        assert (CHECKOUT / (name if "/" in name else f"test/{name}")).exists(), name


# ---- how it is started -------------------------------------------------------------------------------------------------


FOR_STORES = {"python3-psycopg2", "python3-redis"}
FOR_BENCH = {"wrk", "redis-tools", "sqitch", "postgresql-client"}


@pytest.mark.parametrize(
    "script, packages",
    [
        (["chaos/chaos.py", "--show-schedule", "1"], FOR_STORES | {"python3-pika"}),
        (["chaos/overload.py", "--help"], FOR_STORES),
        (["loadtest/bench.py", "--help"], FOR_STORES | FOR_BENCH),
        (["loadtest/profile_shop.py", "--help"], FOR_STORES),
        (["loadtest/table.py", "--help"], FOR_STORES),
        (["loadtest/instructions.py"], {"valgrind", "ninja-build"}),
    ],
    ids=lambda value: Path(value[0]).stem if isinstance(value, list) else "",
)
def test_a_missing_package_is_named(tmp_path, script, packages):
    environment = {name: value for name, value in os.environ.items() if name != "PYTHONPATH"}
    environment["PATH"] = str(tmp_path)  # no command is there
    command = [sys.executable, "-S", CHECKOUT / script[0], *script[1:]]  # -S: without what Debian's packages hold
    done = subprocess.run(command, env=environment, capture_output=True, text=True, timeout=60)
    assert (done.returncode, done.stdout) == (3, ""), done.stderr
    (line,) = done.stderr.splitlines()
    assert set(line.partition(" --no-install-recommends ")[2].split(" (")[0].split()) == packages


def test_the_callers_sanitizer_options_are_added_to_ours():
    ours = chaos.SANITIZERS["ASAN_OPTIONS"]
    assert "quarantine_size_mb=" in ours
    environment = {"ASAN_OPTIONS": "log_path=/tmp/x:detect_leaks=0"}
    for _ in range(2):  # a run that is started again inside namespaces adds nothing
        chaos.prepare_sanitizers(environment)
        assert environment["ASAN_OPTIONS"] == f"{ours}:log_path=/tmp/x:detect_leaks=0"
        assert environment["UBSAN_OPTIONS"] == chaos.SANITIZERS["UBSAN_OPTIONS"]
