"""What a person sees while it runs, and the table at the end."""
import sys
import time

_began = time.monotonic()


def say(text):
    print(f"[{time.monotonic() - _began:6.1f} s] {text}", flush=True)


def note(text):
    """A line that the next one replaces, on a terminal."""
    if sys.stdout.isatty():
        print(f"\r\033[K[{time.monotonic() - _began:6.1f} s] {text}", end="", flush=True)


def note_end():
    if sys.stdout.isatty():
        print("\r\033[K", end="", flush=True)


def table(rows, headings):
    """Columns as wide as they must be; the first to the left, the others too: these are texts with units."""
    cells = [headings] + [[str(cell) for cell in row] for row in rows]
    widths = [max(len(row[column]) for row in cells) for column in range(len(headings))]
    lines = ["  ".join(cell.ljust(width) for cell, width in zip(row, widths)).rstrip() for row in cells]
    lines.insert(1, "  ".join("-" * width for width in widths))
    return "\n".join(lines)
