set local role orders_owner;

-- The first acknowledgement of each request that came with an Idempotency-Key. append_group writes it in the
-- transaction that appends the request's events.
create table idempotency_keys (
    key         text        primary key check (octet_length(key) between 1 and 255),
    fingerprint bytea       not null check (octet_length(fingerprint) between 1 and 64),
    command_id  uuid        not null,
    stream_id   text        not null,
    version     integer     not null,
    position    bigint      not null,
    recorded_at timestamptz not null
);
comment on column idempotency_keys.fingerprint is 'of the request; another one under the same key is refused';
create index idempotency_keys_by_age on idempotency_keys (recorded_at);

grant select on idempotency_keys to orders_command;

-- Deletes keys older than the given age, and than a day, at most so many at a time; returns how many. A younger key
-- protects requests that are still repeated, also from the credentials of the command service. The age is counted from the
-- statement's time: clock_timestamp() may differ from row to row, so no index could be searched for it.
create function purge_idempotency_keys(older_than interval, at_most integer) returns integer
language sql
security definer
set search_path = pg_catalog, pg_temp
set enable_seqscan = off  -- the planner does not know the age and assumes that a third of the keys are older
begin atomic
    with old as (
        select key from public.idempotency_keys
        where recorded_at < statement_timestamp() - greatest(older_than, interval '1 day')
        order by recorded_at limit at_most for update skip locked
    ), deleted as (
        delete from public.idempotency_keys k using old where k.key = old.key returning 1
    )
    select count(*)::integer from deleted;
end;
revoke all on function purge_idempotency_keys from public;
grant execute on function purge_idempotency_keys to orders_command;
