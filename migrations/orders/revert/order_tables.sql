-- Revert orders:order_tables from pg
--
-- Tables that were adopted stay: they were there before, and the Python service may be using them.  Ours have identity
-- columns, adopted ones do not.  Tables that hold orders are not dropped.

BEGIN;

DO $revert$
DECLARE
    ours boolean;
    rows_found boolean;
BEGIN
    SELECT bool_and(attidentity <> '') INTO ours
      FROM pg_attribute
     WHERE attrelid IN ('orders'::regclass, 'order_details'::regclass) AND attname = 'id';
    IF NOT ours THEN
        RETURN;
    END IF;
    LOCK TABLE orders, order_details IN ACCESS EXCLUSIVE MODE;
    SELECT EXISTS (SELECT FROM orders) OR EXISTS (SELECT FROM order_details) INTO rows_found;
    IF rows_found THEN
        RAISE EXCEPTION 'the tables orders and order_details hold orders, and are not dropped'
            USING HINT = 'Save them, empty both tables with TRUNCATE orders, order_details, and revert again.';
    END IF;
    DROP TABLE order_details;
    DROP TABLE orders;
END
$revert$;

COMMIT;
