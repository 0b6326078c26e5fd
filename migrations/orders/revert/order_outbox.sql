-- Revert orders:order_outbox from pg
--
-- A row is an event of an acknowledged order that nobody has yet: it is not thrown away.

BEGIN;

DO $revert$
DECLARE
    rows_found boolean;
BEGIN
    LOCK TABLE order_outbox IN ACCESS EXCLUSIVE MODE;
    SELECT EXISTS (SELECT FROM order_outbox) INTO rows_found;
    IF rows_found THEN
        RAISE EXCEPTION 'the table order_outbox holds events that were not delivered yet, and is not dropped'
            USING HINT = 'Let the orders service run until it is empty, and revert again.';
    END IF;
    DROP TABLE order_outbox;
END
$revert$;

COMMIT;
