-- What the role that the orders service connects as may do: psql's variable `role`; `action` is deploy (set it right, then
-- check it), verify (check it) or check (only that there is such a role, before anything is migrated).  Run by deploy.sh behind the migrations, at each deployment: a table that a migration adds
-- and the service uses is named here.
\set QUIET on
SELECT set_config('airship.role', :'role', false), set_config('airship.action', :'action', false) \g /dev/null

BEGIN;

-- Two grants on one table at once would refuse each other.
SELECT pg_advisory_xact_lock(hashtext('airship: grants')) \g /dev/null

DO $grants$
DECLARE
    service CONSTANT text := current_setting('airship.role');
    home CONSTANT name := current_schema();
    needed CONSTANT text[] := ARRAY['SELECT', 'INSERT', 'UPDATE', 'DELETE'];
    -- The tables with the column that draws from a sequence, if there is one.
    tables CONSTANT text[][] := ARRAY[['orders', 'id'], ['order_details', 'id'], ['order_outbox', 'id'],
                                      ['order_requests', NULL], ['order_idempotency', NULL]];
    table_here regclass;
    sequence_here text;
    one text[];
    problems text[] := '{}';
BEGIN
    IF NOT EXISTS (SELECT FROM pg_roles WHERE rolname = service) THEN
        RAISE EXCEPTION 'SERVICE_ROLE: there is no role "%"', service
            USING HINT = format('As an administrator: CREATE ROLE %I LOGIN PASSWORD ''...''.', service);
    END IF;
    IF service = current_user THEN
        RAISE EXCEPTION 'SERVICE_ROLE: "%" is the role that deploys; the service needs another one', service;
    END IF;
    IF current_setting('airship.action') = 'check' THEN
        RETURN;
    END IF;

    IF current_setting('airship.action') = 'deploy' THEN
        EXECUTE format('GRANT USAGE ON SCHEMA %I TO %I', home, service);
    END IF;
    FOREACH one SLICE 1 IN ARRAY tables LOOP
        table_here := to_regclass(format('%I.%I', home, one[1]));
        CONTINUE WHEN table_here IS NULL; -- not all migrations were asked for
        sequence_here := CASE WHEN one[2] IS NOT NULL THEN pg_get_serial_sequence(table_here::text, one[2]) END;
        IF current_setting('airship.action') = 'deploy' THEN
            EXECUTE format('REVOKE ALL ON TABLE %s FROM %I', table_here, service);
            EXECUTE format('GRANT %s ON TABLE %s TO %I', array_to_string(needed, ', '), table_here, service);
            IF sequence_here IS NOT NULL THEN
                EXECUTE format('REVOKE ALL ON SEQUENCE %s FROM %I', sequence_here, service);
                EXECUTE format('GRANT USAGE ON SEQUENCE %s TO %I', sequence_here, service);
            END IF;
        END IF;
        FOR i IN 1 .. cardinality(needed) LOOP
            IF NOT has_table_privilege(service, table_here, needed[i]) THEN
                problems := problems || format('it has no %s on %s', needed[i], table_here);
            END IF;
        END LOOP;
        IF sequence_here IS NOT NULL AND NOT has_sequence_privilege(service, sequence_here, 'USAGE') THEN
            problems := problems || format('it has no USAGE on %s', sequence_here);
        END IF;
        IF has_table_privilege(service, table_here, 'TRUNCATE, REFERENCES, TRIGGER') THEN
            problems := problems || format('it has more than %s on %s', array_to_string(needed, ', '), table_here);
        END IF;
        IF (SELECT pg_has_role(service, relowner, 'USAGE') FROM pg_class WHERE oid = table_here) THEN
            problems := problems || format('it owns %s, by itself or by a role that it is in', table_here);
        END IF;
    END LOOP;

    IF (SELECT rolsuper OR rolcreaterole OR rolcreatedb OR rolreplication OR rolbypassrls FROM pg_roles WHERE rolname = service) THEN
        problems := problems || 'it is a superuser or may create roles or databases, replicate or bypass row security'::text;
    END IF;
    IF has_schema_privilege(service, home, 'CREATE') THEN
        problems := problems || format('it may create tables in the schema %I (REVOKE CREATE ON SCHEMA %I FROM PUBLIC)', home, home);
    END IF;
    IF cardinality(problems) > 0 THEN
        RAISE EXCEPTION 'SERVICE_ROLE: the role "%" is not one for a service: %', service, array_to_string(problems, '; ');
    END IF;

    IF current_setting('airship.action') = 'deploy' THEN
        -- Names mean the same whatever somebody puts beside the tables, and no statement runs for ever even if the service
        -- forgets to say how long it may.
        BEGIN
            EXECUTE format('ALTER ROLE %I IN DATABASE %I SET search_path = %I, pg_temp', service, current_database(), home);
            EXECUTE format('ALTER ROLE %I IN DATABASE %I SET statement_timeout = ''60s''', service, current_database());
        EXCEPTION WHEN insufficient_privilege THEN
            RAISE WARNING 'the settings of the role "%" are for an administrator to make', service
                USING HINT = format('ALTER ROLE %I IN DATABASE %I SET search_path = %I, pg_temp;'
                                    ' ALTER ROLE %I IN DATABASE %I SET statement_timeout = ''60s''',
                                    service, current_database(), home, service, current_database());
        END;
    END IF;
END
$grants$;

COMMIT;
