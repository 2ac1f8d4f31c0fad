-- Least privilege. Roles belong to the whole server, so they may exist already; `orders migrate` sets their passwords.
--
--   orders_owner      owns every object; it cannot log in
--   orders_migrator   changes the schema, as the owner
--   orders_command    the command service: appends through append_group, reads, keeps snapshots
--   orders_projector  the projector: reads the log, writes read models, holds leases
--   orders_query      the query service: the rights of orders_auditor, in sessions of its own
--   orders_auditor    auditors: reads
--
-- Every later migration begins with `set local role orders_owner;`, so that what it creates belongs to the owner, and
-- grants each object where it creates it.
do $$
declare
    name  text;
    share numeric;
begin
    foreach name in array array['orders_owner', 'orders_migrator', 'orders_command', 'orders_projector', 'orders_query',
                                'orders_auditor']
    loop
        if not exists (select from pg_roles where rolname = name) then
            execute format('create role %I', name);
        end if;
    end loop;
    -- Only once a server: an ALTER ROLE that changes nothing still collides with one in another database.
    if (select rolconnlimit from pg_roles where rolname = 'orders_auditor') = -1 then
        grant orders_owner to orders_migrator;
        grant orders_auditor to orders_query;
        alter role orders_migrator set role = 'orders_owner';
        alter role orders_query set default_transaction_read_only = on;
        alter role orders_auditor set default_transaction_read_only = on;

        -- Defaults for sessions that set nothing: a role may change its own. Our programs set shorter ones.
        foreach name in array array['orders_command', 'orders_projector', 'orders_query', 'orders_auditor'] loop
            execute format('alter role %I set statement_timeout = %L', name,
                           case name when 'orders_projector' then '5min' else '1min' end);
            execute format('alter role %I set idle_in_transaction_session_timeout = ''1min''', name);
        end loop;
        alter role orders_auditor set idle_session_timeout = '10min';

        -- No role can take all connections of the server.
        alter role orders_migrator login connection limit 2;
        for name, share in
            select * from (values ('orders_command', 0.4), ('orders_query', 0.4), ('orders_projector', 0.4),
                                  ('orders_auditor', 0.1)) as of_max_connections
        loop
            execute format('alter role %I login connection limit %s', name,
                           ceil(current_setting('max_connections')::integer * share));
        end loop;
    end if;
    execute format('revoke all on database %I from public', current_database());
    execute format('grant connect on database %I to orders_migrator, orders_command, orders_projector, orders_query,'
                   ' orders_auditor', current_database());
end
$$;

-- What any role may call unless it is revoked: advisory locks, which are the projectors' leases and the migrators' lock;
-- large objects; messages in the write-ahead log. Only a superuser can revoke it.
do $$
declare
    callable regprocedure;
    locks    boolean;
begin
    if not (select rolsuper from pg_roles where rolname = current_user) then
        raise warning 'not applied by a superuser: every role may take advisory locks and write large objects'
                      ' (docs/security.md, "Database roles")';
        return;
    end if;
    for callable, locks in
        select oid::regprocedure, proname like '%advisory%' from pg_proc
        where pronamespace = 'pg_catalog'::regnamespace
          and proname ~ '^(pg_(try_)?advisory_(xact_)?lock(_shared)?|lo_.+|loread|lowrite|pg_logical_emit_message)$'
          and has_function_privilege('public', oid, 'execute')
    loop
        execute format('revoke execute on function %s from public', callable);
        if locks then
            execute format('grant execute on function %s to orders_owner, orders_projector', callable);
        end if;
    end loop;
end
$$;

-- Other databases of the server. By default every role may connect to them, and write temporary tables and large objects
-- there. Where other programs share the server, theirs is the decision.
do $$
declare
    others text[] := array(select datname from pg_database
                           where datallowconn and datname <> current_database()
                             and has_database_privilege('orders_auditor', oid, 'connect'));
    name   text;
begin
    if others <@ array['postgres', 'template1'] then
        foreach name in array others loop
            execute format('revoke connect, temporary on database %I from public', name);
        end loop;
    elsif cardinality(others) > 0 then
        raise warning 'the roles may connect to other databases of this server: %', array_to_string(others, ', ');
    end if;
exception when insufficient_privilege then
    raise warning 'the roles may connect to other databases of this server: %', array_to_string(others, ', ');
end
$$;

-- log_blockers() reads other roles' sessions. Owners that may not grant this have it without states and ages.
do $$
begin
    if not pg_has_role('orders_owner', 'pg_read_all_stats', 'usage') then
        grant pg_read_all_stats to orders_owner;
    end if;
exception when insufficient_privilege then
    raise notice 'log_blockers shows no states and ages of sessions; grant pg_read_all_stats to orders_owner';
end
$$;

revoke all on schema public from public;
grant usage, create on schema public to orders_owner;
grant usage on schema public to orders_command, orders_projector, orders_auditor;

alter table schema_migrations owner to orders_owner;
revoke all on schema_migrations from public;
