"""Picks faults by the seed alone, lets at most two of them overlap, heals, and waits until all works again."""
import random
import threading
import time
from dataclasses import dataclass, field

from . import limits
from .checker import Window
from .faults import CATALOGUE, Fault
from .history import HTTP, OK

OVERLAP_SHARE = 0.4  # of the rounds have two faults
OVERLAP_AFTER_S = 2.0  # the second begins so long after the first at the latest
CALM_S = 1.0  # between two rounds
POLL_S = 0.1


@dataclass
class Planned:
    fault: Fault
    after_s: float  # from the round's beginning
    lasts_s: float
    chosen: dict

    def __str__(self):
        chosen = ", ".join(str(value) for name, value in self.chosen.items() if name not in ("bodies", "labels", "order", "mends"))
        return f"{self.fault.id} {self.fault.name}" + (f" ({chosen})" if chosen else "")


@dataclass
class Struck:
    """A fault as it happened."""

    planned: Planned
    began: float = None
    healed: float = None
    recovered_s: float = None
    failure: str = None  # it could not be brought about
    until: float = field(default=None)  # the round's end


def chosen_faults(ids):
    return [fault for fault in CATALOGUE if not ids or fault.id in ids]


def schedule(seed, ids=()):
    """Rounds without end.  Each fault comes once before any comes twice.  `ids`: these faults alone."""
    catalogue = chosen_faults(ids)
    rng = random.Random(f"nemesis-{seed}")
    deck = []

    def draw(allowed):
        nonlocal deck
        for index, fault in enumerate(deck):
            if allowed(fault):
                return deck.pop(index)
        return None

    def plan(fault, after_s):
        return Planned(fault, after_s, rng.uniform(*fault.lasts_s), fault.choose(rng))

    while True:
        if not deck:
            deck = rng.sample(catalogue, len(catalogue))
        first = draw(lambda fault: True)
        planned = [plan(first, 0)]
        if rng.random() < OVERLAP_SHARE and first.concerns != "everything":
            second = draw(lambda fault: fault.concerns not in (first.concerns, "everything"))
            if second is not None:
                planned.append(plan(second, rng.uniform(0, OVERLAP_AFTER_S)))
        yield planned


def first_run_of_success(ops):
    """When the first of so many requests in a row began that all succeeded; None: not yet."""
    run = []
    for op in ops:
        if op.by != HTTP or op.left:
            continue
        if op.ended is None:
            return None  # what comes behind it does not count before it has ended
        if op.outcome == OK or op.status in (409, 422):
            run.append(op)
            if len(run) >= limits.RUN_OF_SUCCESS:
                return run[0].began
        else:
            run = []
    return None


def recovery_s(healed, works, ready):
    """How long it took until all worked: one of two instances that stays away is no failure of a request, but one of recovery."""
    return works - healed if ready - healed <= limits.RECOVERY_S else ready - healed


def least_faults(seconds):
    """What a run of that length must have brought about to say anything."""
    return max(1, int(seconds // limits.FAULT_S))


def goes_on(now_s, seconds, count, least):
    """Whether there is another round, so many seconds after the first: until the time is over and there were faults enough, or
    there is no hope of that."""
    return now_s < seconds or (count < least and now_s < seconds * limits.LONGER_AT_MOST)


def drop_lacking(rounds, lacks):
    """The rounds without the faults that need what this machine lacks."""
    for planned in rounds:
        planned = [one for one in planned if one.fault.needs not in lacks]
        if planned:
            yield planned


class Nemesis:
    def __init__(self, stage, seed, ids, say):
        can_strike = any(fault.needs not in stage.system.lacks for fault in chosen_faults(ids))
        self.stage, self.say = stage, say
        self.rounds = drop_lacking(schedule(seed, ids), stage.system.lacks) if can_strike else iter(())
        self.struck = []
        self.calm = []

    @property
    def brought_about(self):
        return sum(one.failure is None for one in self.struck)

    def run(self, seconds, least):
        """Rounds until the time is over and there were faults enough; the last one is brought to its end."""
        began = calm_since = time.monotonic()
        for planned in self.rounds:
            now_s = time.monotonic() - began
            if not goes_on(now_s, seconds, self.brought_about, least):
                break
            if now_s >= seconds:
                self.say(f"{self.brought_about} of {least} faults: it goes on until {seconds * limits.LONGER_AT_MOST:g} s at most")
            self.stage.alone = len(planned) == 1
            self.calm.append(Window("*", calm_since, time.monotonic()))
            round_ = [Struck(one) for one in planned]
            self.struck += round_
            threads = [threading.Thread(target=self._strike, args=(one,), daemon=True) for one in round_]
            for thread in threads:
                thread.start()
            for thread in threads:
                thread.join()
            self._recover(round_)
            calm_since = time.monotonic()
            time.sleep(CALM_S)

    def _strike(self, struck):
        planned = struck.planned
        time.sleep(planned.after_s)
        struck.began = time.monotonic()
        self.say(f"{planned}, {planned.lasts_s:.1f} s")
        try:
            with planned.fault.run(self.stage, **planned.chosen):
                time.sleep(planned.lasts_s)
        except Exception as error:  # shown: a fault that cannot be brought about proves nothing
            struck.failure = f"{type(error).__name__}: {error}"
            self.say(f"  {planned} failed: {struck.failure}")
        struck.healed = time.monotonic()

    def _recover(self, round_):
        healed = max(one.healed for one in round_)
        limit = healed + limits.RECOVERY_S + limits.HANG_S  # beyond the bound, to know how long it takes
        works, seconds = None, None
        while time.monotonic() < limit:
            if works is None:
                works = first_run_of_success(self.stage.history.since(healed))
            if works is not None and self.stage.system.is_ready():
                seconds = recovery_s(healed, works, time.monotonic())
                break
            time.sleep(POLL_S)
        for one in round_:
            one.recovered_s = seconds
            one.until = time.monotonic()
        self.say("  " + (f"works again after {seconds:.1f} s" if seconds is not None else "DOES NOT WORK AGAIN"))
