set local role orders_owner;

-- The ids that the log was given after its first. A log restored from a backup has lost some of its past, and goes on to
-- another: under the old id, a client's token and a service's memory of the lost past would be believed. The hash chain
-- keeps beginning at the first id.
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

-- Gives the log a new id; granted to nobody, so for the owner only.
create function give_new_log_id(reason text) returns table (old_id uuid, new_id uuid, "position" bigint)
language plpgsql
set search_path = pg_catalog, pg_temp
as $$
declare
    head public.log_head%rowtype;
begin
    -- As appends do: whoever is appending finishes first, whoever waits meets the new id.
    select * into strict head from public.log_head where only_row for update;
    old_id := head.log_id;
    new_id := gen_random_uuid();
    "position" := head.position;
    insert into public.log_ids
    select count(*) + 1, new_id, old_id, head.position, clock_timestamp(), give_new_log_id.reason from public.log_ids;
    update public.log_head set log_id = new_id where only_row;
    return next;
end
$$;
revoke all on function give_new_log_id from public;

-- A program that still calls it without `known_log_ids` finds the new one, too.
drop function append_events(
    text[], integer[], uuid[], text[], bytea[], integer[], uuid[], text[], integer[], text[], text[], timestamptz[]
);

-- The only way into the log. Takes a group of commands, so that many of them share one lock and one fsync, and judges
-- each on its own:
--
--   appended    its events are in the log; `version` and `position` are those of its last event
--   conflict    the stream is not at the expected version, or the log has another id than the command was decided
--               under; nothing appended; `version` is the stream's
--   replayed    the Idempotency-Key was seen with the same request; the ids and numbers of the first acknowledgement
--   key_reused  the Idempotency-Key was seen with another request; nothing appended
--
-- A command may come without events (it changed nothing): then only its expected version is checked and its key kept.
-- Streams and keys must be distinct within one call; a caller that breaks this gets unique_violation and appends nothing.
create function append_events(
    -- one element per command
    stream_ids text[], expected_versions integer[], command_ids uuid[], keys text[], fingerprints bytea[],
    -- one element per event, in the order of the commands; event_commands holds the 1-based index of its command
    event_commands integer[], event_ids uuid[], event_types text[], schema_versions integer[],
    datas text[], metadatas text[], occurred_ats timestamptz[],
    -- one element per command: the id of the log that it was decided under; null where nothing was remembered
    known_log_ids uuid[] default null
) returns table (
    outcome text, command_id uuid, stream_id text, version integer, "position" bigint, log_id uuid
)
language plpgsql
security definer
set search_path = pg_catalog, pg_temp
set enable_seqscan = off  -- a plan cached while the tables were still empty must not scan them once they are not
as $$
#variable_conflict use_column
declare
    head        public.log_head%rowtype;
    at          timestamptz;
    outcomes    text[];
    versions    integer[];
    positions   bigint[];
    out_ids     uuid[];
    out_streams text[];
    c           integer;
    row_of      integer[] := '{}';   -- the appended events: index into the event arrays …
    new_version integer[] := '{}';   -- … and what the log adds to each
    new_hash    bytea[]   := '{}';
    first       bigint;
begin
    -- Every append queues here, so positions become visible in the order they are given. The statements below take
    -- their snapshots after this lock is held and therefore see all that went before.
    select * into strict head from public.log_head where only_row for update;
    at := greatest(clock_timestamp(), head.recorded_at);
    first := head.position;

    select array_agg(case when k.key is null and coalesce(s.version, 0) = r.expected
                               and coalesce(r.known, head.log_id) = head.log_id then 'appended'
                          when k.key is null then 'conflict'
                          when k.fingerprint = r.fingerprint then 'replayed'
                          else 'key_reused' end order by r.nr),
           array_agg(coalesce(k.version, s.version, 0) order by r.nr),
           array_agg(coalesce(k.position, s.position, 0) order by r.nr),
           array_agg(coalesce(k.command_id, r.command_id) order by r.nr),
           array_agg(coalesce(k.stream_id, r.stream_id) order by r.nr)
    into outcomes, versions, positions, out_ids, out_streams
    from unnest(stream_ids, expected_versions, command_ids, keys, fingerprints, known_log_ids)
         with ordinality as r (stream_id, expected, command_id, key, fingerprint, known, nr)
    left join lateral (select e.version, e.position from public.events e where e.stream_id = r.stream_id
                       order by e.version desc limit 1) s on true
    left join public.idempotency_keys k on k.key = r.key;

    for i in 1 .. coalesce(cardinality(event_commands), 0) loop
        c := event_commands[i];
        continue when outcomes[c] <> 'appended';
        head.position := head.position + 1;
        versions[c] := versions[c] + 1;
        positions[c] := head.position;
        head.hash := public.event_hash(head.hash, head.position, stream_ids[c], versions[c], event_ids[i],
            event_types[i], schema_versions[i], datas[i], metadatas[i], occurred_ats[i], at);
        row_of := row_of || i;
        new_version := new_version || versions[c];
        new_hash := new_hash || head.hash;
    end loop;

    if head.position > first then
        insert into public.events
        select first + n.nr, stream_ids[event_commands[n.i]], n.version, event_ids[n.i], event_types[n.i],
               schema_versions[n.i], datas[n.i]::json, metadatas[n.i]::json, occurred_ats[n.i], at, n.hash
        from unnest(row_of, new_version, new_hash) with ordinality as n (i, version, hash, nr)
        order by n.nr;
        update public.log_head set position = head.position, hash = head.hash, recorded_at = at where only_row;
        -- A hint for tailing readers, once per group. Whoever misses it polls.
        perform pg_notify('events', head.position::text);
    end if;

    insert into public.idempotency_keys
    select r.key, r.fingerprint, r.command_id, r.stream_id, versions[r.nr], positions[r.nr], at
    from unnest(stream_ids, command_ids, keys, fingerprints, outcomes)
         with ordinality as r (stream_id, command_id, key, fingerprint, outcome, nr)
    where r.key is not null and r.outcome = 'appended';

    return query select v.*, head.log_id from unnest(outcomes, out_ids, out_streams, versions, positions) as v;
end
$$;
revoke all on function append_events from public;
grant execute on function append_events to orders_command;

-- As before, but only of an event that the log has: a service may still hold the state of a past that was cut off.
create or replace function save_snapshot(
    stream_id text, fingerprint bytea, version integer, "position" bigint, occurred_at timestamptz, state text
) returns void
language sql
security definer
set search_path = pg_catalog, pg_temp
begin atomic
    insert into public.snapshots as kept (stream_id, fingerprint, version, "position", occurred_at, taken_at, state)
    select e.stream_id, save_snapshot.fingerprint, e.version, e."position", save_snapshot.occurred_at,
           clock_timestamp(), save_snapshot.state::json
    from public.events e
    where e.stream_id = save_snapshot.stream_id and e.version = save_snapshot.version
      and e."position" = save_snapshot."position"
    on conflict on constraint snapshots_pkey do update
    set version = excluded.version, "position" = excluded."position", occurred_at = excluded.occurred_at,
        taken_at = excluded.taken_at, state = excluded.state
    where kept.version < excluded.version;
end;
