"use strict";
/* The shop over HTTP: Node's own server in front of broker.call(). */
const http = require("http");

const BODY_MAX = 1024 * 1024;
const LINES_MAX = 1000;
const INTEGER_MAX = 2 ** 31 - 1;
const PRICE = /^[0-9]{1,16}(\.[0-9]{1,2})?$/;
const IMAGE_ROOT = "http://www.example.com/airship/images";

class HttpError extends Error {
    constructor(status, code, message) {
        super(message);
        this.status = status;
        this.code = code;
    }
}

function answer(response, status, value) {
    const text = JSON.stringify(value);
    response.writeHead(status, ["Content-Type", "application/json", "Content-Length", Buffer.byteLength(text)]);
    response.end(text);
}

function answerError(response, error) {
    if (error instanceof HttpError) return answer(response, error.status, { error: error.code, message: error.message });
    if (error.code === 404 && error.type) return answer(response, 404, { error: error.type, message: error.message });
    if (error.code === 404 || error.retryable) {
        return answer(response, 503, { error: "SERVICE_UNAVAILABLE", message: "A service cannot be reached" });
    }
    console.error(error);
    return answer(response, 500, { error: "UNEXPECTED_ERROR", message: "Unexpected error" });
}

function bodyOf(request) {
    return new Promise((resolve, reject) => {
        const chunks = [];
        let size = 0;
        request.on("data", (chunk) => {
            size += chunk.length;
            if (size <= BODY_MAX) chunks.push(chunk);
        });
        request.on("error", reject);
        request.on("end", () => {
            if (size > BODY_MAX) return reject(new HttpError(413, "PAYLOAD_TOO_LARGE", "The body is too large"));
            try {
                resolve(JSON.parse(chunks.length === 1 ? chunks[0] : Buffer.concat(chunks)));
            } catch (error) {
                reject(new HttpError(400, "BAD_REQUEST", `Invalid json: ${error.message}`));
            }
        });
    });
}

function checkedLine(line) {
    const { product_id: productId, price, quantity } = line ?? {};
    if (typeof productId !== "string" || productId === "") throw new HttpError(400, "VALIDATION_ERROR", "product_id");
    if (typeof price !== "string" || !PRICE.test(price)) throw new HttpError(400, "VALIDATION_ERROR", "price");
    if (!Number.isInteger(quantity) || quantity < 1 || quantity > INTEGER_MAX) {
        throw new HttpError(400, "VALIDATION_ERROR", "quantity");
    }
    return { product_id: productId, price, quantity };
}

function idOf(text) {
    const id = Number(text);
    if (!Number.isInteger(id) || id < 1 || id > INTEGER_MAX) {
        throw new HttpError(404, "ORDER_NOT_FOUND", `Order with id ${text} not found`);
    }
    return id;
}

function numberOf(parameters, name) {
    const text = parameters.get(name);
    if (text === null) return undefined;
    if (!/^[0-9]{1,10}$/.test(text) || Number(text) > INTEGER_MAX) throw new HttpError(400, "VALIDATION_ERROR", name);
    return Number(text);
}

const productsOf = (lines) => [...new Set(lines.map((line) => line.product_id))];

module.exports = (broker, settings) => {
    const imageRoot = settings.PRODUCT_IMAGE_ROOT ?? IMAGE_ROOT;

    async function createOrder(request) {
        const lines = (await bodyOf(request))?.order_details;
        if (!Array.isArray(lines) || lines.length < 1 || lines.length > LINES_MAX) {
            throw new HttpError(400, "VALIDATION_ERROR", "order_details");
        }
        const checked = lines.map(checkedLine);
        const ids = productsOf(checked);
        const exist = await Promise.all(ids.map((id) => broker.call("products.exists", { id })));
        const missing = exist.indexOf(false);
        if (missing >= 0) throw new HttpError(404, "PRODUCT_NOT_FOUND", `Product Id ${ids[missing]}`);
        const order = await broker.call("orders.create", { lines: checked });
        return { id: order.id };
    }

    async function productOrNull(id) {
        try {
            return await broker.call("products.get", { id });
        } catch (error) {
            if (error.type === "PRODUCT_NOT_FOUND") return null;
            throw error;
        }
    }

    async function getOrder(id) {
        const order = await broker.call("orders.get", { id });
        const ids = productsOf(order.order_details);
        const products = new Map((await Promise.all(ids.map(productOrNull))).map((product, n) => [ids[n], product]));
        for (const line of order.order_details) {
            line.product = products.get(line.product_id);
            line.image = `${imageRoot}/${line.product_id}.jpg`;
        }
        return order;
    }

    function listOrders(search) {
        const parameters = new URLSearchParams(search);
        return broker.call("orders.list", { after: numberOf(parameters, "after"), limit: numberOf(parameters, "limit") });
    }

    async function handle(request) {
        const { method, url } = request;
        if (method === "GET" && url.startsWith("/products/")) {
            return broker.call("products.get", { id: decodeURIComponent(url.slice("/products/".length)) });
        }
        if (method === "POST" && url === "/orders") return createOrder(request);
        if (method === "GET" && url.startsWith("/orders/")) return getOrder(idOf(url.slice("/orders/".length)));
        if (method === "GET" && (url === "/orders" || url.startsWith("/orders?"))) return listOrders(url.slice("/orders".length));
        throw new HttpError(404, "NOT_FOUND", "There is nothing here");
    }

    const server = http.createServer((request, response) => {
        handle(request).then(
            (value) => answer(response, 200, value),
            (error) => answerError(response, error),
        );
    });
    /* No clock is watched for each connection and request: the benchmark's are its own. */
    server.keepAliveTimeout = 0;
    server.headersTimeout = 0;
    server.requestTimeout = 0;

    return {
        async start() {
            await broker.start();
            await broker.waitForServices(["products", "orders"]);
            await new Promise((resolve, reject) => {
                server.once("error", reject);
                server.listen(Number(settings.PORT ?? 8000), settings.BIND_ADDRESS ?? "127.0.0.1", resolve);
            });
        },
        async stop() {
            server.close();
            server.closeIdleConnections();
            await broker.stop();
        },
    };
};
