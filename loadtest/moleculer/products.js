"use strict";
/* Products in Redis: one hash a product, under products:<id>. */
const Redis = require("ioredis");
const { Errors } = require("moleculer");
const { startServices } = require("./broker");

const APPLIED_TTL_S = 7 * 24 * 3600;
const FIELDS = ["title", "passenger_capacity", "maximum_speed", "in_stock"];

/* An event may come twice; its effect may not.  KEYS: what remembers the order, then a product's for each line. */
const TAKE_FROM_STOCK = `
if redis.call('SET', KEYS[1], 1, 'NX', 'EX', ARGV[1]) then
    for i = 2, #KEYS do
        if redis.call('EXISTS', KEYS[i]) == 1 then
            redis.call('HINCRBY', KEYS[i], 'in_stock', -ARGV[i])
        end
    end
end`;

const keyOf = (id) => `products:${id}`;

module.exports = (broker, settings) => {
    const redis = new Redis(settings.REDIS_URI ?? "redis://localhost:6379/0", {
        enableAutoPipelining: true,
        noDelay: true,
        lazyConnect: true,
        maxRetriesPerRequest: null,
        scripts: { takeFromStock: { lua: TAKE_FROM_STOCK } },
    });

    broker.createService({
        name: "products",
        actions: {
            async get(ctx) {
                const { id } = ctx.params;
                const [title, capacity, speed, stock] = await redis.hmget(keyOf(id), ...FIELDS);
                if (title === null) {
                    throw new Errors.MoleculerClientError(`Product ID ${id} does not exist`, 404, "PRODUCT_NOT_FOUND");
                }
                return {
                    id,
                    title,
                    passenger_capacity: Number(capacity),
                    maximum_speed: Number(speed),
                    in_stock: Number(stock),
                };
            },
            async exists(ctx) {
                return (await redis.exists(keyOf(ctx.params.id))) === 1;
            },
        },
        events: {
            "order.created": {
                group: "products",
                handler(ctx) {
                    const { id, order_details: lines } = ctx.params.order;
                    const keys = lines.map((line) => keyOf(line.product_id));
                    const quantities = lines.map((line) => line.quantity);
                    return redis.takeFromStock(1 + keys.length, `moleculer:applied:${id}`, ...keys, APPLIED_TTL_S, ...quantities);
                },
            },
        },
    });

    return {
        async start() {
            await redis.connect();
            await startServices(broker);
        },
        async stop() {
            await broker.stop();
            await redis.quit();
        },
    };
};
