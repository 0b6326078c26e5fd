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

/* Three things that Moleculer has no setting for.  Here, as in ours, events are kept on disk and calls are not (it has one set
 * of message options for all packets), and an event that comes while the program stops goes back to its queue.  And a service
 * is ready when its queues are there: Moleculer makes them a second after broker.start(), by itself, and what is sent
 * to a queue before there is one is lost without a word. */
class Transporter extends Transporters.AMQP {
    constructor(options) {
        super(options);
        this.events = [];
        this.subscribed = new Promise((resolve) => (this.resolveSubscribed = resolve));
    }

    subscribeBalancedEvent(...names) {
        const subscribed = super.subscribeBalancedEvent(...names);
        this.events.push(subscribed); // makeBalancedSubscriptions() does not wait for these
        return subscribed;
    }

    async makeBalancedSubscriptions() {
        await super.makeBalancedSubscriptions();
        await Promise.all(this.events);
        this.resolveSubscribed();
    }

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

/* A broker with services: when this resolves, they are asked. */
async function startServices(broker) {
    await broker.start();
    await broker.transit.tx.subscribed;
}

module.exports = { createBroker, startServices };
