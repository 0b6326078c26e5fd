"use strict";
/* Orders in PostgreSQL, in the tables that the C and Python services share. */
const { Errors } = require("moleculer");
const { startServices } = require("./broker");
const { Pool } = require("pg");

const CONNECTIONS = 20;
const LIST_MAX = 10_000;
const NOW = "now() AT TIME ZONE 'utc'";

/* Prepared once a connection, by these names.  An order is one statement, so its transaction is one round trip and one flush. */
const CREATE = {
    name: "create",
    text: `WITH made AS (INSERT INTO orders (created_at, updated_at) VALUES (${NOW}, ${NOW}) RETURNING id),
        line AS (SELECT * FROM unnest($1::text[], $2::numeric[], $3::int[]) WITH ORDINALITY AS asked (product_id, price, quantity, n))
        INSERT INTO order_details (order_id, product_id, price, quantity, created_at, updated_at)
        SELECT made.id, product_id, price, quantity, ${NOW}, ${NOW} FROM made, line ORDER BY n
        RETURNING order_id, id, product_id, price::text, quantity`,
};
const GET = {
    name: "get",
    text: "SELECT order_id, id, product_id, price::text, quantity FROM order_details WHERE order_id = $1 ORDER BY id",
};
const EXISTS = { name: "exists", text: "SELECT FROM orders WHERE id = $1" };
const LIST = {
    name: "list",
    text: `SELECT o.id, d.id, d.product_id, d.price::text, d.quantity
        FROM (SELECT id FROM orders WHERE id > $1 ORDER BY id LIMIT $2) o LEFT JOIN order_details d ON d.order_id = o.id
        ORDER BY o.id, d.id`,
};

const lineOf = ([, id, productId, price, quantity]) => ({ id, product_id: productId, price, quantity });

/* Rows that begin with their order's id, in its order. */
function ordersOf(rows) {
    const orders = [];
    let last = null;
    for (const row of rows) {
        if (last === null || last.id !== row[0]) orders.push((last = { id: row[0], order_details: [] }));
        if (row[1] !== null) last.order_details.push(lineOf(row));
    }
    return orders;
}

module.exports = (broker, settings) => {
    const pool = new Pool({
        connectionString: settings.POSTGRES_URI ?? "postgresql://postgres:postgres@localhost:5432/orders",
        max: Number(settings.POSTGRES_CONNECTIONS ?? CONNECTIONS),
        idleTimeoutMillis: 0,
    });
    const query = async (statement, values) => (await pool.query({ ...statement, values, rowMode: "array" })).rows;

    broker.createService({
        name: "orders",
        actions: {
            async create(ctx) {
                const { lines } = ctx.params;
                const rows = await query(CREATE, [
                    lines.map((line) => line.product_id),
                    lines.map((line) => line.price),
                    lines.map((line) => line.quantity),
                ]);
                const [order] = ordersOf(rows);
                /* By name, not by who is there now: it waits in the queue for a products that is away. */
                await broker.emit("order.created", { order }, { groups: ["products"] });
                return order;
            },
            async get(ctx) {
                const { id } = ctx.params;
                const rows = await query(GET, [id]);
                if (rows.length === 0 && (await query(EXISTS, [id])).length === 0) {
                    throw new Errors.MoleculerClientError(`Order with id ${id} not found`, 404, "ORDER_NOT_FOUND");
                }
                return { id, order_details: rows.map(lineOf) };
            },
            async list(ctx) {
                return ordersOf(await query(LIST, [ctx.params.after ?? 0, Math.min(ctx.params.limit ?? LIST_MAX, LIST_MAX)]));
            },
        },
    });

    return {
        async start() {
            await pool.query("SELECT");
            await startServices(broker);
        },
        async stop() {
            await broker.stop();
            await pool.end();
        },
    };
};
