#!/usr/bin/python3
"""Publishes as fast as the broker takes it, into a queue of its own that keeps little, until standard input ends.

    flood.py AMQP_URI     prints how many messages it were
"""
import select
import sys

import pika

BODY = b"x" * 4096
QUEUE_LENGTH = 1000
BURST = 100


def main():
    connection = pika.BlockingConnection(pika.URLParameters(sys.argv[1]))
    channel = connection.channel()
    queue = channel.queue_declare("", exclusive=True, arguments={"x-max-length": QUEUE_LENGTH}).method.queue
    count = 0
    try:
        while not select.select([sys.stdin], [], [], 0)[0]:
            for _ in range(BURST):
                channel.basic_publish("", queue, BODY)
            count += BURST
    except pika.exceptions.AMQPError:
        pass  # the broker may be what another fault strikes
    print(count)


if __name__ == "__main__":
    main()
