"use strict";
/* The broker of one process: Moleculer as its documentation would have it for speed.  README.md gives the reasons. */
const { ServiceBroker, Transporters } = require("moleculer");

const PREFETCH = 100;
const EVENT = "EVENT";
const PERSISTENT = { persistent: true };

function refuseUnhandled(handled) {
    if (handled === false) throw new Error("not handled: the program stops");
    return handled;
}

/* Two things that Moleculer has no setting for: here, as in ours, events are kept on disk and calls are not (it has one set of
 * message options for all packets), and an event that comes while the program stops goes back to its queue. */
class Transporter extends Transporters.AMQP {
    send(topic, data, route) {
        if (route.packet.type !== EVENT || !route.balanced || !this.channel) return super.send(topic, data, route);
        this.channel.sendToQueue(topic, data, PERSISTENT);
        return this.broker.Promise.resolve();
    }

    receive(command, data) {
        const result = super.receive(command, data);
        return command === EVENT ? result?.then(refuseUnhandled) : result;
    }
}

function createBroker(name) {
    return new ServiceBroker({
        nodeID: name,
        transporter: new Transporter({
            url: process.env.AMQP_URI ?? "amqp://guest:guest@localhost:5672",
            prefetch: Number(process.env.PREFETCH ?? PREFETCH),
            socketOptions: { noDelay: true },
            autoDeleteQueues: false,
        }),
        disableBalancer: true,
        serializer: "JSON",
        logger: false,
        metrics: false,
        tracing: false,
        validator: false,
        cacher: false,
        internalServices: false,
        internalMiddlewares: false,
        skipProcessEventRegistration: true,
    });
}

module.exports = { createBroker };
