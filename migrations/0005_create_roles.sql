-- Least privilege. Roles belong to the whole server, so they may exist already; passwords are set by `orders migrate`.
--
--   orders_owner      owns everything; nobody logs in as it
--   orders_migrator   changes the schema, as the owner
--   orders_command    the command service: appends through append_events, reads
--   orders_projector  the projector: reads the log, keeps snapshots
--   orders_auditor    auditors and the query service: reads the log, in read-only transactions
do $$
declare
    name text;
begin
    -- Two databases of one server may be migrated at once.
    perform pg_advisory_xact_lock(7308332182909349747);
    foreach name in array array['orders_owner', 'orders_migrator', 'orders_command', 'orders_projector', 'orders_auditor']
    loop
        if not exists (select from pg_roles where rolname = name) then
            execute format('create role %I', name);
        end if;
    end loop;
    -- Only where it is not so already: an unchanged ALTER ROLE would still collide with one in another database.
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

revoke all on schema public from public;
grant usage, create on schema public to orders_owner;
grant usage on schema public to orders_command, orders_projector, orders_auditor;

alter table schema_migrations owner to orders_owner;
alter table events owner to orders_owner;
alter table log_head owner to orders_owner;
alter table idempotency_keys owner to orders_owner;
alter table snapshots owner to orders_owner;
alter table snapshot_compaction owner to orders_owner;
alter sequence projector_epochs owner to orders_owner;
alter function refuse_rewriting_history owner to orders_owner;
alter function event_hash owner to orders_owner;
alter function append_events owner to orders_owner;
alter function purge_idempotency_keys owner to orders_owner;
alter function save_snapshot owner to orders_owner;
alter function finish_compaction owner to orders_owner;

revoke all on all tables in schema public from public;
revoke all on all functions in schema public from public;

grant select on events, log_head to orders_command, orders_projector, orders_auditor;
grant execute on function event_hash to orders_auditor;

grant select on idempotency_keys, snapshots to orders_command;
grant execute on function append_events, purge_idempotency_keys, save_snapshot to orders_command;

grant select on snapshots, snapshot_compaction to orders_projector;
grant usage on sequence projector_epochs to orders_projector;
grant execute on function save_snapshot, finish_compaction to orders_projector;

-- Later migrations begin with `set local role orders_owner;`, so that what they create belongs to the owner.
