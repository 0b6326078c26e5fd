"""Runs a program under gdbserver, for one debugger that connects to 127.0.0.1:PORT.

    debug_on_loopback.py PORT PID-FILE PROGRAM [ARGUMENT...]

gdbserver's own listener takes connections on every address of the machine, whatever host it is given, and who connects may
run anything.  So it talks through its standard input and output here, and a small relay listens for it.  This process
becomes gdbserver.  PID-FILE tells the program's process id, which stays when the debugger lets the program go.
"""
import os
import select
import shlex
import socket
import sys

LOOPBACK = "127.0.0.1"
CHUNK_SIZE = 65536


def relay(listener, gdbserver):
    """Until either side hangs up."""
    readable, _, _ = select.select([listener, gdbserver], [], [])
    if gdbserver in readable:  # it says nothing before it is asked: it has gone
        return
    debugger, _ = listener.accept()
    listener.close()
    debugger.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
    other = {debugger: gdbserver, gdbserver: debugger}
    while True:
        for side in select.select(list(other), [], [])[0]:
            data = side.recv(CHUNK_SIZE)
            if not data:
                return
            other[side].sendall(data)


def main():
    port, pid_file, program = int(sys.argv[1]), sys.argv[2], sys.argv[3:]
    listener = socket.socket()
    listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
    listener.bind((LOOPBACK, port))
    listener.listen(1)
    near, far = socket.socketpair()
    if os.fork() == 0:
        # Twice, so that gdbserver has no child that it does not know.
        if os.fork() == 0:
            far.close()
            try:
                relay(listener, near)
            except OSError:
                pass  # a side hung up
        os._exit(0)
    os.wait()
    near.close()
    listener.close()
    os.dup2(far.fileno(), 0)
    os.dup2(far.fileno(), 1)
    far.close()
    # It hands the wrapper's words to a shell as they are.
    wrapper = [shlex.quote(word) for word in ("sh", "-c", 'echo $$ >"$0" && exec "$@"', pid_file)]
    os.execvp("gdbserver", ["gdbserver", "--once", "--wrapper", *wrapper, "--", "-", *program])


if __name__ == "__main__":
    main()
