-- Verify orders:order_tables on pg

\ir ../check_tables.sql

SELECT id, created_at, updated_at FROM orders WHERE false;
SELECT id, order_id, product_id, price, quantity, created_at, updated_at FROM order_details WHERE false;
