-- The hash of one event: SHA-256 over the previous hash and the event's columns in the table's order, each as its length
-- (int4) and its value in PostgreSQL's binary format, just as COPY ... (FORMAT binary) writes them. So no two events
-- share an encoding, and a verifier hashes what it is sent without decoding it. Text is UTF-8 whatever the client says.
create function event_hash(
    previous bytea, "position" bigint, stream_id text, version integer, event_id uuid, event_type text,
    schema_version integer, data text, metadata text, occurred_at timestamptz, recorded_at timestamptz
) returns bytea language sql immutable parallel safe
return sha256(
    previous
    || '\x00000008'::bytea || int8send(position)
    || int4send(octet_length(stream_id)) || convert_to(stream_id, 'UTF8')
    || '\x00000004'::bytea || int4send(version)
    || '\x00000010'::bytea || uuid_send(event_id)
    || int4send(octet_length(event_type)) || convert_to(event_type, 'UTF8')
    || '\x00000004'::bytea || int4send(schema_version)
    || int4send(octet_length(data)) || convert_to(data, 'UTF8')
    || int4send(octet_length(metadata)) || convert_to(metadata, 'UTF8')
    || '\x00000008'::bytea || timestamptz_send(occurred_at)
    || '\x00000008'::bytea || timestamptz_send(recorded_at)
);

-- The only way into the log. Takes a group of commands, so that many of them share one lock and one fsync, and judges
-- each on its own:
--
--   appended    its events are in the log; `version` and `position` are those of its last event
--   conflict    the stream is not at the expected version; nothing appended; `version` is the stream's
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
    datas text[], metadatas text[], occurred_ats timestamptz[]
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

    select array_agg(case when k.key is null and coalesce(s.version, 0) = r.expected then 'appended'
                          when k.key is null then 'conflict'
                          when k.fingerprint = r.fingerprint then 'replayed'
                          else 'key_reused' end order by r.nr),
           array_agg(coalesce(k.version, s.version, 0) order by r.nr),
           array_agg(coalesce(k.position, s.position, 0) order by r.nr),
           array_agg(coalesce(k.command_id, r.command_id) order by r.nr),
           array_agg(coalesce(k.stream_id, r.stream_id) order by r.nr)
    into outcomes, versions, positions, out_ids, out_streams
    from unnest(stream_ids, expected_versions, command_ids, keys, fingerprints)
         with ordinality as r (stream_id, expected, command_id, key, fingerprint, nr)
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

-- Forgets keys older than the given age, a bounded number at a time; answers how many.
create function purge_idempotency_keys(older_than interval, at_most integer) returns integer
language sql
security definer
set search_path = pg_catalog, pg_temp
begin atomic
    with old as (
        select key from public.idempotency_keys where recorded_at < clock_timestamp() - older_than
        order by recorded_at limit at_most for update skip locked
    ), gone as (
        delete from public.idempotency_keys k using old where k.key = old.key returning 1
    )
    select count(*)::integer from gone;
end;
revoke all on function purge_idempotency_keys from public;
