set local role orders_owner;

-- The ids that the log was given after its first. A log restored from a backup has lost events and continues with others:
-- under the old id, a client's token and a service's cache would still be valid for the lost ones. The hash chain keeps
-- beginning at the first id.
create table log_ids (
    number   integer     primary key check (number > 0),
    log_id   uuid        not null unique,
    replaces uuid        not null unique,
    position bigint      not null,
    given_at timestamptz not null,
    reason   text        not null check (char_length(reason) between 1 and 500 and reason !~ '[[:cntrl:]]')
);
comment on table  log_ids          is 'empty for a log that has its first id, which is in log_head';
comment on column log_ids.replaces is 'the id until then';
comment on column log_ids.position is 'where the log ended then';

create trigger log_ids_are_immutable before update or delete on log_ids
    for each row execute function refuse_rewriting_history();
create trigger log_ids_are_not_truncated before truncate on log_ids
    for each statement execute function refuse_rewriting_history();
alter table log_ids enable always trigger log_ids_are_immutable;
alter table log_ids enable always trigger log_ids_are_not_truncated;
grant select on log_ids to orders_auditor;

-- Gives the log a new id; granted to no role, so for the owner only.
create function give_new_log_id(reason text) returns table (old_id uuid, new_id uuid, "position" bigint)
language plpgsql
set search_path = pg_catalog, pg_temp
as $$
declare
    head public.log_head%rowtype;
begin
    -- As appends do: an append that holds the lock finishes first; those that wait for it find the new id.
    select * into strict head from public.log_head where only_row for update;
    old_id := head.log_id;
    new_id := gen_random_uuid();
    "position" := head.position;
    insert into public.log_ids
    select count(*) + 1, new_id, old_id, head.position, clock_timestamp(), give_new_log_id.reason from public.log_ids;
    update public.log_head set log_id = new_id where only_row;
    -- The catalogue was restored with the log.
    update public.catalogue_head set log_id = gen_random_uuid() where only_row;
    return next;
end
$$;
revoke all on function give_new_log_id from public;
