-- What the first Alembic revision of the Python service makes: the starting point of every database to be adopted.
CREATE TABLE orders (
    id serial NOT NULL,
    created_at timestamp without time zone NOT NULL,
    updated_at timestamp without time zone NOT NULL,
    PRIMARY KEY (id)
);
CREATE TABLE order_details (
    id serial NOT NULL,
    created_at timestamp without time zone NOT NULL,
    updated_at timestamp without time zone NOT NULL,
    product_id varchar NOT NULL,
    price numeric(18, 2) NOT NULL,
    quantity integer NOT NULL,
    order_id integer NOT NULL,
    PRIMARY KEY (id),
    CONSTRAINT fk_order_details_orders FOREIGN KEY (order_id) REFERENCES orders (id)
);
