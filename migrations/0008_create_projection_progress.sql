-- Whose session it is and what it does, PostgreSQL tells only of one's own sessions, and to this role. Owners that may
-- not give it away have `log_stalls` without states and ages; an administrator can still grant it.
do $$
begin
    perform pg_advisory_xact_lock(7308332182909349747);  -- as in 0005: two databases of one server at once
    if not pg_has_role('orders_owner', 'pg_read_all_stats', 'usage') then
        grant pg_read_all_stats to orders_owner;
    end if;
exception when insufficient_privilege then
    raise notice 'log_stalls names who is in the way, but not since when; grant pg_read_all_stats to orders_owner';
end
$$;

set local role orders_owner;

-- How far each partition of a read model is, said by its projector with every heartbeat, wherever the read model is kept:
-- for the command service, which knows of no read model, to see how far behind they are.
create table projection_progress (
    projection  text        not null,
    partition   integer     not null default 0,
    log_id      uuid,
    position    bigint      not null,
    serve_from  bigint      not null,
    reported_at timestamptz not null,
    primary key (projection, partition)
) with (fillfactor = 10);  -- room for HOT updates: rewritten by every heartbeat
comment on column projection_progress.log_id     is 'null: there is no read model';
comment on column projection_progress.serve_from is 'not served before it reaches this position';

grant select, insert, update, delete on projection_progress to orders_projector;
grant select on projection_progress to orders_command, orders_auditor;

-- Who is in the way of the log in this database, or may soon be:
--
--   blocked           one of our sessions has waited for a lock for `waiting`; the pid is that of whoever holds the queue
--                     up, however long it is; 0 is a prepared transaction
--   long-transaction  a transaction is older than `old`: it keeps what it locked, and the dead versions of the log's head
--
-- No statement is shown: those may hold customers' data.
create function log_stalls(waiting interval, old interval) returns table (
    kind text, blocked_pid integer, blocked_application text, waited_seconds double precision,
    pid integer, application text, state text, transaction_seconds double precision
)
language sql
stable
security definer
set search_path = pg_catalog, pg_temp
begin atomic
    with recursive waiters as materialized (
        select a.pid, a.application_name, min(l.waitstart) as since
        from pg_locks l join pg_stat_activity a on a.pid = l.pid
        where not l.granted and l.waitstart < clock_timestamp() - waiting
          and a.datname = current_database() and a.application_name like 'orders-%'
        group by a.pid, a.application_name
    ), queue (waiter, ahead) as (
        select w.pid, b.pid from waiters w cross join lateral unnest(pg_blocking_pids(w.pid)) as b (pid)
        union
        select q.waiter, b.pid from queue q cross join lateral unnest(pg_blocking_pids(q.ahead)) as b (pid)
    ), first_in_queue as (
        select distinct q.waiter, q.ahead from queue q where cardinality(pg_blocking_pids(q.ahead)) = 0
    )
    select 'blocked', w.pid, w.application_name, extract(epoch from clock_timestamp() - w.since)::float8,
           f.ahead, a.application_name, a.state, extract(epoch from clock_timestamp() - a.xact_start)::float8
    from waiters w join first_in_queue f on f.waiter = w.pid left join pg_stat_activity a on a.pid = f.ahead
    union all
    select 'long-transaction', null, null, null,
           a.pid, a.application_name, a.state, extract(epoch from clock_timestamp() - a.xact_start)::float8
    from pg_stat_activity a
    where a.datname = current_database() and a.xact_start < clock_timestamp() - old and a.backend_type = 'client backend';
end;
revoke all on function log_stalls from public;
grant execute on function log_stalls to orders_command, orders_projector, orders_auditor;
