-- Least privilege. Roles belong to the whole server, so they may exist already; `orders migrate` sets their passwords.
--
--   orders_owner      owns every object; it cannot log in
--   orders_migrator   changes the schema, as the owner
--   orders_command    the command service: appends through append_group, reads
--   orders_projector  the projector: reads the log, writes read models and snapshots
--   orders_auditor    auditors and the query service: reads, in read-only transactions
--
-- Every later migration begins with `set local role orders_owner;`, so that what it creates belongs to the owner, and
-- grants each object where it creates it.
do $$
declare
    name text;
begin
    -- Serialises migrations of several databases of one server.
    perform pg_advisory_xact_lock(7308332182909349747);
    foreach name in array array['orders_owner', 'orders_migrator', 'orders_command', 'orders_projector', 'orders_auditor']
    loop
        if not exists (select from pg_roles where rolname = name) then
            execute format('create role %I', name);
        end if;
    end loop;
    -- Only once a server: an ALTER ROLE that changes nothing still collides with one in another database.
    if not (select rolcanlogin from pg_roles where rolname = 'orders_auditor') then
        alter role orders_migrator login connection limit 2;
        alter role orders_command login;
        alter role orders_projector login;
        alter role orders_auditor login;
        grant orders_owner to orders_migrator;
        alter role orders_migrator set role = 'orders_owner';
        alter role orders_auditor set default_transaction_read_only = on;
    end if;
    execute format('revoke all on database %I from public', current_database());
    execute format('grant connect on database %I to orders_migrator, orders_command, orders_projector, orders_auditor',
                   current_database());
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
