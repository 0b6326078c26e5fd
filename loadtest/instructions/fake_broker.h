/*
 * fake_broker: a broker for one client in the same process, so that a driver decides when every byte arrives.
 *
 * It listens on loopback, says yes to whatever is declared, remembers who consumes what, and hands out what is published.
 * One thread: fake_broker_turn() takes what has come and writes what is due; it never waits.
 */
#ifndef LOADTEST_INSTRUCTIONS_FAKE_BROKER_H
#define LOADTEST_INSTRUCTIONS_FAKE_BROKER_H

#include <amqp.h>
#include <amqp_framing.h>
#include <stdbool.h>
#include <stdint.h>

struct fake_broker;

struct fake_message {
    amqp_bytes_t routing_key;
    const amqp_basic_properties_t *properties;
    amqp_bytes_t body;
};

/* A message was published; all of it is lent until this returns. */
typedef void fake_broker_published_fn(struct fake_broker *broker, const struct fake_message *message, void *arg);

/* Everything here ends the program when it fails. */
struct fake_broker *fake_broker_new(fake_broker_published_fn *published, void *arg);
uint16_t fake_broker_port(const struct fake_broker *broker);
void fake_broker_turn(struct fake_broker *broker);

/* Whether anybody consumes a queue whose name begins so. */
bool fake_broker_consumes(const struct fake_broker *broker, const char *queue_prefix);

/* Deliver to the consumer of a queue whose name begins so; leaves with the next fake_broker_flush(). */
void fake_broker_deliver(struct fake_broker *broker, const char *queue_prefix, const char *exchange,
                         const struct fake_message *message);
void fake_broker_flush(struct fake_broker *broker);

/* The delivery tag of the last acknowledgement. */
uint64_t fake_broker_acknowledged(const struct fake_broker *broker);

#endif
