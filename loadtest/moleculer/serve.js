"use strict";
/*
 * One program of the shop on Moleculer:  node serve.js products|orders|gateway
 *
 * Settings, from the environment:
 *   AMQP_URI, REDIS_URI, POSTGRES_URI        as the C programs take them
 *   PREFETCH                                 messages fetched ahead (100)
 *   POSTGRES_CONNECTIONS                     orders' connections to its database (20)
 *   PORT, BIND_ADDRESS, PRODUCT_IMAGE_ROOT   the gateway's (8000, 127.0.0.1)
 *   READY_FILE                               made when everything answers
 */
const fs = require("fs");
const { createBroker } = require("./broker");

const PROGRAMS = { products: "./products", orders: "./orders", gateway: "./gateway" };
const STOP_TIMEOUT_MS = 10_000;

async function main(name) {
    if (!Object.hasOwn(PROGRAMS, name ?? "")) {
        process.stderr.write(`usage: node serve.js ${Object.keys(PROGRAMS).join("|")}\n`);
        process.exit(2);
    }
    const broker = createBroker(name);
    const program = require(PROGRAMS[name])(broker, process.env);

    async function stop() {
        setTimeout(() => process.exit(1), STOP_TIMEOUT_MS).unref();
        await program.stop();
        process.exit(0);
    }
    process.once("SIGTERM", stop);
    process.once("SIGINT", stop);
    await program.start();
    if (process.env.READY_FILE) fs.writeFileSync(process.env.READY_FILE, "");
}

main(process.argv[2]).catch((error) => {
    console.error(error);
    process.exit(1);
});
