"""INV-1 to INV-10 over what was seen.  Pure: reads no clock, no file and no server, so that it can be tested by itself."""
from collections import Counter, defaultdict
from dataclasses import dataclass, field
from decimal import Decimal

from . import limits
from .history import FAIL, HTTP, INFO, OK

INVARIANTS = {
    "INV-1": "every acknowledged order and product is there",
    "INV-2": "one order at most for each request and each Idempotency-Key",
    "INV-3": "the stock is what it was less what was ordered, each order once",
    "INV-4": "every event was applied, the outbox is empty, dead letters are poison alone",
    "INV-5": "every request ended in time, with a documented answer that was meant for it",
    "INV-6": "all works again soon after each fault",
    "INV-7": "memory, descriptors, queues and work under way are back where they were",
    "INV-8": "503 and 4xx did nothing; the same key tells the truth",
    "INV-9": "no sanitizer report, no sandbox violation, no end of a process that was not brought about",
    "INV-10": "readiness tells the truth, liveness never flaps",
}

# What each kind of request may be answered, beside 503 and 504; the first is success.
STATUSES = {
    "order": (200,),
    "twin": (200, 409),  # one of two with the same key at the same time
    "replay": (200,),
    "reuse": (422,),  # the key of another order
    "get-order": (200,),
    "list-orders": (200,),
    "create-product": (200,),
    "get-product": (200,),
    "delete-product": (204,),
}
ORDERING = ("order", "twin", "replay")
CHANGES = (*ORDERING, "reuse", "create-product", "delete-product")
CODES = {503: ("SERVICE_UNAVAILABLE",), 409: ("IDEMPOTENCY_KEY_IN_USE",), 422: ("IDEMPOTENCY_KEY_REUSED",)}
REMOTE_ERRORS = ("ServiceUnavailable", "ServiceBusy", "OutcomeUnknown")


@dataclass
class Violation:
    invariant: str
    text: str
    at: float = None  # when, where that is known

    def __str__(self):
        return f"{self.invariant}: {self.text}"


@dataclass
class Window:
    """Something held for a program (or for all, "*") from one moment to another."""

    program: str
    began: float
    ended: float

    def meets(self, program, began, ended):
        return self.program in ("*", program) and self.began <= ended and began <= self.ended


@dataclass
class Probe:
    program: str
    path: str  # "/healthz" or "/readyz"
    began: float
    ended: float
    status: object  # of HTTP, or why there was none


@dataclass
class DeadLetter:
    body: bytes
    cause: str = None  # what it says of itself
    attempts: int = 0
    queue: str = None  # it came from

    @property
    def explains_itself(self):
        return bool(self.cause) and self.attempts >= 1 and bool(self.queue)


@dataclass
class Evidence:
    """What the system looks like when it has come to rest."""

    orders: dict = field(default_factory=dict)  # id -> [(product id, price, quantity)], lines by id
    stock: dict = field(default_factory=dict)  # product id -> in_stock; None: no such product
    stock_at_first: dict = field(default_factory=dict)
    also_sold: dict = field(default_factory=dict)  # product id -> by events that are no order's
    products: dict = field(default_factory=dict)  # of those acknowledged: id -> fields, or None
    products_expected: dict = field(default_factory=dict)
    outbox: int = 0
    queues: dict = field(default_factory=dict)  # name -> messages
    dead_letters: list = field(default_factory=list)
    poison: dict = field(default_factory=dict)  # body -> whether it must have become a dead letter
    injured: list = field(default_factory=list)  # Windows: the nemesis hurt a process
    unready: list = field(default_factory=list)  # Windows: /readyz must not say yes
    calm: list = field(default_factory=list)  # Windows: nothing is broken, all has recovered
    probes: list = field(default_factory=list)
    recoveries: list = field(default_factory=list)  # (fault, healed at, seconds or None)
    afterwards: float = None  # since when success is measured
    afterwards_until: float = None
    baseline: dict = field(default_factory=dict)  # role -> (resident KiB, descriptors)
    at_rest: dict = field(default_factory=dict)
    in_flight: dict = field(default_factory=dict)  # program -> requests and events under way at rest
    reports: list = field(default_factory=list)  # lines of sanitizers and of the sandbox
    exits: list = field(default_factory=list)  # (moment, what) of ends that nobody brought about, wrong exit codes
    sanitized: bool = False
    deadline_s: float = limits.DEADLINE_S


# ---- one answer ----------------------------------------------------------------------------------------------------


def marker_of(price):
    """The order that a line belongs to."""
    return int(Decimal(str(price)))


def lines_of(order):
    return [(line["product_id"], line["price"], line["quantity"]) for line in order["order_details"]]


def _fault_of_error(op):
    error = op.answer.get("error") if isinstance(op.answer, dict) else None
    if not isinstance(op.answer, dict) or set(op.answer) != {"error", "message"}:
        return f"not the shape of an error: {op.answer!r}"
    unknown = "OUTCOME_UNKNOWN" if op.kind in CHANGES else "TIMEOUT"
    if error not in CODES.get(op.status, (unknown,)):
        return f"{op.status} says {error}"
    return None


def _fault_of_order(op):
    if op.answer.get("id") != op.asked["id"]:
        return f"asked for order {op.asked['id']}, got {op.answer.get('id')}"
    expected = [(line["product_id"], line["price"], line["quantity"]) for line in op.lines]
    if lines_of(op.answer) != expected:
        return f"order {op.asked['id']} has other lines: {lines_of(op.answer)} instead of {expected}"
    for line in op.answer["order_details"] if op.by == HTTP else ():
        if line["product"] is None or line["product"]["id"] != line["product_id"]:
            return f"a line of {line['product_id']} shows {line['product']}"
    return None


def _fault_of_list(op):
    ids = [order["id"] for order in op.answer]
    if ids != sorted(set(ids)) or any(id <= op.asked["after"] for id in ids) or len(ids) > op.asked["limit"]:
        return f"the list after {op.asked['after']}, {op.asked['limit']} at most, is {ids}"
    for order in op.answer:
        if len({marker_of(line["price"]) for line in order["order_details"]}) != 1:
            return f"order {order['id']} is made of several: {order}"
    return None


def _fault_of_success(op):
    answer = op.answer
    if op.kind in ORDERING:
        if not isinstance(answer, dict) or type(answer.get("id")) is not int:
            return f"no order's id: {answer!r}"
        return None
    if op.kind == "get-order":
        return _fault_of_order(op)
    if op.kind == "list-orders":
        return _fault_of_list(op)
    if op.kind == "get-product":
        wrong = {name: answer.get(name) for name, value in op.asked.items() if answer.get(name) != value}
        return f"asked for {op.asked}, got {wrong}" if wrong else None
    if op.kind == "create-product" and op.by == HTTP and answer != {"id": op.asked["id"]}:
        return f"made {op.asked['id']}, was told {answer}"
    return None


def fault_of_answer(op):
    """What is wrong with an answer as such, or None."""
    if op.status is None:
        return None
    allowed = STATUSES[op.kind]
    try:
        if op.by == HTTP and op.status not in (*allowed, 503, 504):
            return f"{op.status} is not among the documented answers: {op.answer!r}"
        if op.by != HTTP and op.status != 200 and op.status not in REMOTE_ERRORS:
            return f"{op.status} is not among the documented errors: {op.answer!r}"
        if op.status in (200, 204):
            return _fault_of_success(op)
        return _fault_of_error(op) if op.by == HTTP else None
    except (AttributeError, KeyError, TypeError, ValueError) as error:
        return f"not the shape of an answer ({error!r}): {op.answer!r}"


# ---- the whole -----------------------------------------------------------------------------------------------------


def _injured(evidence, program, began, ended):
    grace = limits.GRACE_S
    return any(window.meets(program, began - grace, ended + grace) for window in evidence.injured)


def _orders_by_marker(evidence):
    made = defaultdict(list)
    for order_id, lines in evidence.orders.items():
        for marker in {marker_of(price) for _, price, _ in lines}:
            made[marker].append(order_id)
    return made


def check_orders(ops, evidence):
    """INV-1, INV-2 and INV-8."""
    made = _orders_by_marker(evidence)
    asked = defaultdict(list)
    for op in ops:
        if op.order is not None and op.kind in (*ORDERING, "reuse"):
            asked[op.order].append(op)
    for marker, ids in made.items():
        if marker not in asked:
            yield Violation("INV-2", f"orders {ids} were asked for by nobody (marker {marker})")
        elif len(ids) > 1:
            yield Violation("INV-2", f"order {marker} was made {len(ids)} times: {sorted(ids)}", asked[marker][0].began)
    told = {}
    for marker, attempts in asked.items():
        yield from _check_attempts(marker, attempts, made.get(marker, []), evidence, told)


def _check_attempts(marker, attempts, ids, evidence, told):
    acknowledged = {}
    for op in attempts:
        if op.outcome == OK and op.kind != "reuse" and isinstance(op.answer, dict):
            acknowledged.setdefault(op.answer.get("id"), op)
    for order_id, op in acknowledged.items():
        lines = evidence.orders.get(order_id)
        expected = [(line["product_id"], line["price"], line["quantity"]) for line in op.lines]
        if lines is None:
            yield Violation("INV-1", f"acknowledged order {order_id} is not in the database: {op}", op.began)
        elif [tuple(line) for line in lines] != expected:
            yield Violation("INV-1", f"acknowledged order {order_id} has other lines: {lines}, asked for {expected}", op.began)
        if told.setdefault(order_id, marker) != marker:
            yield Violation("INV-5", f"orders {told[order_id]} and {marker} were both told that they are {order_id}", op.began)
    if len(acknowledged) > 1:
        text = f"order {marker} was told several ids: {sorted(acknowledged)}"
        yield Violation("INV-8", text, attempts[0].began)
    if ids and all(op.outcome == FAIL or op.kind == "reuse" for op in attempts):
        yield Violation("INV-8", f"order {marker} is there ({ids}), but {attempts[-1]} promised that nothing was done")
    keyed = [op for op in attempts if op.key is not None and op.kind in ORDERING and not op.left]
    if keyed and not acknowledged:
        yield Violation("INV-8", f"the key of order {marker} never told what became of it; at last: {keyed[-1]}")


def check_products(evidence):
    for product_id, expected in evidence.products_expected.items():
        found = evidence.products.get(product_id)
        if found is None:
            yield Violation("INV-1", f"acknowledged product {product_id} is not in Redis")
        elif any(str(found.get(name)) != str(value) for name, value in expected.items()):
            yield Violation("INV-5", f"product {product_id} is {found} instead of {expected}")


def check_stock(evidence):
    """INV-3."""
    sold = Counter(evidence.also_sold)
    for lines in evidence.orders.values():
        for product_id, _, quantity in lines:
            sold[product_id] += quantity
    for product_id, at_first in evidence.stock_at_first.items():
        expected, stock = at_first - sold[product_id], evidence.stock.get(product_id)
        if stock != expected:
            yield Violation("INV-3", f"the stock of {product_id} is {stock} instead of {expected} ({at_first} at first)")


def check_events(evidence):
    """INV-4, and what of INV-7 concerns queues."""
    if evidence.outbox:
        yield Violation("INV-4", f"{evidence.outbox} events are still in the outbox")
    for name, messages in evidence.queues.items():
        if messages and not name.endswith(".dead-letters"):
            yield Violation("INV-4" if name.startswith("evt-") else "INV-7", f"{messages} messages lie in {name}")
    for letter in evidence.dead_letters:
        if letter.body not in evidence.poison:
            text = f"a dead letter that was no poison, after {letter.attempts} attempts ({letter.cause}): {letter.body[:300]!r}"
            yield Violation("INV-4", text)
        elif not letter.explains_itself:
            yield Violation("INV-4", f"a dead letter that does not say where it comes from and why: {letter!r:.300}")
    buried = {letter.body for letter in evidence.dead_letters}
    for body, is_certain in evidence.poison.items():
        if is_certain and body not in buried:
            yield Violation("INV-4", f"poison that is no dead letter: {body[:100]!r}")


def check_requests(ops, evidence):
    """INV-5."""
    orders = {order_id: {marker_of(price) for _, price, _ in lines} for order_id, lines in evidence.orders.items()}
    for op in ops:
        if op.left:
            continue
        if op.ended is None:
            yield Violation("INV-5", f"a request that never ended: {op}", op.began)
            continue
        if op.by == HTTP and op.took_s > evidence.deadline_s and not _injured(evidence, "gateway-1", op.began, op.ended):
            yield Violation("INV-5", f"too late (deadline {evidence.deadline_s:g} s): {op}", op.began)
        if op.by == HTTP and op.lost is not None and not _injured(evidence, "gateway-1", op.began, op.ended):
            yield Violation("INV-5", f"no answer: {op}", op.began)
        problem = op.problem or (fault_of_answer(op) if op.answer is not None else None)
        if problem is not None:
            yield Violation("INV-5", f"{op}: {problem}", op.began)
        elif op.kind == "list-orders" and isinstance(op.answer, list):
            for order in op.answer:
                if order["id"] in orders and {marker_of(line["price"]) for line in order["order_details"]} != orders[order["id"]]:
                    yield Violation("INV-5", f"{op} shows order {order['id']} as another one", op.began)


def success_share(ops, began, ended):
    """Of what was asked by HTTP in that time: (share, count, failures)."""
    measured = [op for op in ops if op.by == HTTP and not op.left and began <= op.began <= ended]
    failures = [op for op in measured if op.outcome != OK]
    return (1 - len(failures) / len(measured) if measured else 0.0), len(measured), failures


def check_recovery(ops, evidence):
    """INV-6."""
    for fault, healed, seconds in evidence.recoveries:
        if seconds is None or seconds > limits.RECOVERY_S:
            text = "not at all" if seconds is None else f"after {seconds:.1f} s"
            yield Violation("INV-6", f"{fault}: it worked again {text} (bound {limits.RECOVERY_S:g} s)", healed)
    if evidence.afterwards is not None:
        share, count, failures = success_share(ops, evidence.afterwards, evidence.afterwards_until)
        if share < limits.SUCCESS_SHARE:
            text = f"afterwards {share:.1%} of {count} requests succeeded; " + "; ".join(map(str, failures[:3]))
            yield Violation("INV-6", text, evidence.afterwards)


def check_resources(evidence):
    """INV-7."""
    extra = limits.RSS_EXTRA_SANITIZED_KIB if evidence.sanitized else limits.RSS_EXTRA_KIB
    for role, (rss, descriptors) in evidence.at_rest.items():
        rss_at_first, descriptors_at_first = evidence.baseline[role]
        if rss > rss_at_first * limits.RSS_FACTOR + extra:
            yield Violation("INV-7", f"{role} has {rss} KiB resident, {rss_at_first} at first")
        if descriptors > descriptors_at_first + limits.DESCRIPTORS_EXTRA:
            yield Violation("INV-7", f"{role} has {descriptors} descriptors, {descriptors_at_first} at first")
    for program, count in evidence.in_flight.items():
        if count:
            yield Violation("INV-7", f"{program} says that {count:g} are under way, at rest")


def check_processes(evidence):
    """INV-9."""
    for line in evidence.reports:
        yield Violation("INV-9", line)
    for moment, what in evidence.exits:
        yield Violation("INV-9", what, moment)


def _inside(probe, windows):
    return any(one.program in ("*", probe.program) and one.began <= probe.began and probe.ended <= one.ended for one in windows)


def check_probes(evidence):
    """INV-10."""
    for probe in evidence.probes:
        hurt = _injured(evidence, probe.program, probe.began, probe.ended)
        what = f"{probe.program}{probe.path}: {probe.status} after {probe.ended - probe.began:.2f} s"
        if probe.path == "/healthz":
            if probe.status != 200 and not hurt:
                yield Violation("INV-10", f"liveness flapped: {what}", probe.began)
            continue
        if probe.status == 200 and _inside(probe, evidence.unready):
            yield Violation("INV-10", f"ready, but cannot work: {what}", probe.began)
        if probe.status != 200 and not hurt and _inside(probe, evidence.calm):
            yield Violation("INV-10", f"not ready, with nothing broken: {what}", probe.began)


def looked_at(ops, evidence):
    """invariant -> (how much, of what), what it is about first: a pass over nothing would say nothing."""
    ordering = [op for op in ops if op.kind in ORDERING and not op.left]
    in_doubt = {op.order for op in ordering if op.key is not None and op.outcome != OK}
    deliveries = Counter(op.order for op in ordering if op.outcome == OK)
    unready = [probe for probe in evidence.probes if probe.path == "/readyz" and _inside(probe, evidence.unready)]
    judged = [probe for probe in evidence.probes if probe.path == "/healthz" or _inside(probe, evidence.calm)]
    return {
        "INV-1": [(sum(op.outcome == OK for op in ordering), "acknowledgements"), (len(evidence.products_expected), "products")],
        "INV-2": [(len(evidence.orders), "orders"), (sum(n > 1 for n in deliveries.values()), "acknowledged more than once")],
        "INV-3": [(sum(map(len, evidence.orders.values())), "lines"), (len(evidence.stock_at_first), "products")],
        "INV-4": [(len(evidence.orders), "events"), (len(evidence.poison), "poisoned ones"), (len(evidence.queues), "queues")],
        "INV-5": [(len(ops), "requests")],
        "INV-6": [(len(evidence.recoveries), "faults")],
        "INV-7": [(len(evidence.at_rest), "programs"), (len(evidence.in_flight), "gauges")],
        "INV-8": [(sum(op.outcome != OK for op in ordering), "refusals and unknowns"), (len(in_doubt), "keys that were in doubt")],
        "INV-9": [(len(evidence.at_rest), "programs"), (len(evidence.injured), "ends that were brought about")],
        "INV-10": [(len(judged) + len(unready), "probes"), (len(unready), "of them when not ready")],
    }


def check(ops, evidence):
    """All violations, by invariant."""
    found = {name: [] for name in INVARIANTS}
    checks = (
        check_orders(ops, evidence),
        check_products(evidence),
        check_stock(evidence),
        check_events(evidence),
        check_requests(ops, evidence),
        check_recovery(ops, evidence),
        check_resources(evidence),
        check_processes(evidence),
        check_probes(evidence),
    )
    for violations in checks:
        for violation in violations:
            found[violation.invariant].append(violation)
    return found


def outcome_of(op):
    """What the client may conclude from how its request ended."""
    if op.status is None:
        return INFO if op.sent else FAIL
    if op.status == STATUSES[op.kind][0]:
        return OK
    return INFO if op.status in (504, "OutcomeUnknown") else FAIL
