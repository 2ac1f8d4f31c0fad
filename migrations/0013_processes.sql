set local role orders_owner;

-- The process runner (command_service/processes/): how far it is, and what processes wait for. Both save it reading the
-- log from the start; what was reacted to is in the streams of the processes.

-- `followed`: what was waited for at this position is in process_waiting. `received`: the events up to here were brought to
-- the processes. There is no row before the first start of a runner, and after a restore: it reads the log from the start.
create table process_progress (
    only_row boolean primary key default true check (only_row),
    followed bigint  not null,
    received bigint  not null
) with (fillfactor = 10);  -- space for HOT updates: the row is written every second
create table process_waiting (
    process_id text primary key,
    waiting    text not null  -- JSON of command_service/processes/agenda.py
);
grant select, insert, update on process_progress to orders_command;
grant select, insert, update, delete on process_waiting to orders_command;

-- The lease of the active runner. The role of the command service may take no other advisory lock.
create function try_process_lease() returns boolean
language sql
security definer
set search_path = pg_catalog, pg_temp
begin atomic
    select pg_try_advisory_lock(hashtextextended('processes', 0));
end;
revoke all on function try_process_lease from public;
grant execute on function try_process_lease to orders_command;
