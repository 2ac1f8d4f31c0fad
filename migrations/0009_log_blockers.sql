set local role orders_owner;

-- What blocks the log in this database, or may soon do so:
--
--   blocked           one of our sessions has waited for a lock for `waiting`; the pid is that of the session at the front
--                     of its queue, however long that is; 0 is a prepared transaction
--   long-transaction  a transaction is older than `old`: it keeps its locks, and the dead versions of the log's head
--   notify-queue      the server's queue of notifications is half full, so appends send none. A session that listens
--                     within a transaction, in any database, keeps the queue: the sessions with the oldest transactions
--
-- No statement is shown: statements may hold customers' data.
create function log_blockers(waiting interval, old interval) returns table (
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
    where a.datname = current_database() and a.xact_start < clock_timestamp() - old and a.backend_type = 'client backend'
    union all
    select 'notify-queue', null, null, null,
           o.pid, o.application_name, o.state, extract(epoch from clock_timestamp() - o.xact_start)::float8
    from (select a.pid, a.application_name, a.state, a.xact_start from pg_stat_activity a
          where a.backend_type = 'client backend' and a.xact_start < clock_timestamp() - interval '1 second'
          order by a.xact_start limit 5) o
    where (select pg_notification_queue_usage()) >= 0.5;
end;
revoke all on function log_blockers from public;
grant execute on function log_blockers to orders_command, orders_projector, orders_auditor;
