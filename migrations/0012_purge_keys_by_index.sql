set local role orders_owner;

-- As before, but each purge no longer reads every key that there is. The age is counted from the statement's time:
-- clock_timestamp() may differ from row to row, so no index could be searched for it.
create or replace function purge_idempotency_keys(older_than interval, at_most integer) returns integer
language sql
security definer
set search_path = pg_catalog, pg_temp
set enable_seqscan = off  -- not knowing the age, the planner takes a third of the keys to be older
begin atomic
    with old as (
        select key from public.idempotency_keys where recorded_at < statement_timestamp() - older_than
        order by recorded_at limit at_most for update skip locked
    ), gone as (
        delete from public.idempotency_keys k using old where k.key = old.key returning 1
    )
    select count(*)::integer from gone;
end;
