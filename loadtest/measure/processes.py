"""What the kernel tells of processes: their children, the CPU time they took, the memory they hold."""
import os
from pathlib import Path

TICKS_A_SECOND = os.sysconf("SC_CLK_TCK")


def _stat(pid):
    """The fields behind the name, which may itself hold spaces and parentheses; None for one that is gone."""
    try:
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
    except (FileNotFoundError, ProcessLookupError):
        return None


def tree(pids):
    """These processes and all that descend from them."""
    parents = {}
    for entry in os.scandir("/proc"):
        if entry.name.isdigit():
            stat = _stat(entry.name)
            if stat:
                parents[int(entry.name)] = int(stat[1])
    found, fresh = set(pids), set(pids)
    while fresh:
        fresh = {child for child, parent in parents.items() if parent in fresh} - found
        found |= fresh
    return found


def cpu_seconds(pids):
    """User and system time of these processes' trees, that of children they have waited for included."""
    ticks = 0
    for pid in tree(pids):
        stat = _stat(pid)
        if stat:
            ticks += sum(int(field) for field in stat[11:15])
    return ticks / TICKS_A_SECOND


def _status_kib(pid, name):
    try:
        for line in Path(f"/proc/{pid}/status").read_text().splitlines():
            if line.startswith(name + ":"):
                return int(line.split()[1])
    except (FileNotFoundError, ProcessLookupError):
        pass
    return 0


def resident_mib(pids):
    """Of the largest process of these trees: what it holds now."""
    return max((_status_kib(pid, "VmRSS") for pid in tree(pids)), default=0) / 1024


def resident_peak_mib(pids):
    """Of the largest process of these trees: the most it ever held."""
    return max((_status_kib(pid, "VmHWM") for pid in tree(pids)), default=0) / 1024
