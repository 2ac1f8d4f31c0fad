set local role orders_owner;

-- The only way into the log. Takes a group of commands, so that many of them share one lock and one fsync, and decides on
-- each of them alone:
--
--   appended    its events are in the log; version and position are those of its last event
--   conflict    the stream is not at the expected version, or the log has another id than the command was decided
--               under; nothing appended; version and position are those of the stream's last event
--   replayed    the Idempotency-Key was seen with the same request; the ids and numbers of the first acknowledgement
--   key_reused  the Idempotency-Key was seen with another request; nothing appended
--
-- A command may come without events (it changed nothing): then only its expected version is checked and its key kept.
-- Streams and keys must be distinct within one call; a caller that breaks this gets unique_violation and appends nothing.
--
-- Returns one row of arrays, and skips what concerns keys where there are none: both save time (decision 23).
create function append_group(
    -- one element per command; an array of which all elements are null may be null
    stream_ids text[], expected_versions integer[], command_ids uuid[], keys text[], fingerprints bytea[],
    -- one element per event, in the order of the commands; event_commands holds the 1-based index of its command
    event_commands integer[], event_ids uuid[], event_types text[], schema_versions integer[],
    datas text[], metadatas text[], occurred_ats timestamptz[],
    -- one element per command: the id of the log that it was decided under; null where the command service knows none yet
    known_log_ids uuid[],
    out log_id uuid,
    -- one element per command
    out outcomes text[], out versions integer[], out positions bigint[],
    -- null where no command has a key; the command's own ids unless its key had been seen
    out first_command_ids uuid[], out first_stream_ids text[]
)
language plpgsql
security definer
set search_path = pg_catalog, pg_temp
set enable_seqscan = off  -- a plan cached while the tables were still empty must not scan them once they are not
set plan_cache_mode = force_generic_plan  -- else every group is planned anew, for as long as the first ones were small
as $$
declare
    at          timestamptz;
    last        bigint;              -- the last position, …
    last_hash   bytea;               -- … and its event's hash
    before      bigint;              -- the last position before this group
    seen        record;
    c           integer;
    row_of      integer[] := '{}';   -- the appended events: index into the event arrays …
    new_version integer[] := '{}';   -- … and what the log adds to each
    new_hash    bytea[]   := '{}';
begin
    -- Appends queue for this lock, so positions become visible in the order in which they are assigned. The statements
    -- below take their snapshots while this function holds it, and so see every earlier append.
    select h.log_id, h.position, h.position, h.hash, greatest(clock_timestamp(), h.recorded_at)
    into strict log_id, before, last, last_hash, at
    from public.log_head h where h.only_row for update;

    select array_agg(case when coalesce(s.version, 0) = expected_versions[r.nr]
                               and coalesce(known_log_ids[r.nr], append_group.log_id) = append_group.log_id
                          then 'appended' else 'conflict' end order by r.nr),
           array_agg(coalesce(s.version, 0) order by r.nr),
           array_agg(coalesce(s.position, 0) order by r.nr)
    into outcomes, versions, positions
    from unnest(stream_ids) with ordinality as r (stream_id, nr)
    left join lateral (select e.version, e.position from public.events e where e.stream_id = r.stream_id
                       order by e.version desc limit 1) s on true;

    if keys is not null then
        -- By unnest(), from which PostgreSQL expects ten rows: from generate_series() it expects a thousand, and would read
        -- every key that there is.
        first_command_ids := command_ids;
        first_stream_ids := stream_ids;
        for seen in
            select r.nr, k.* from unnest(keys) with ordinality as r (key, nr)
            join public.idempotency_keys k on k.key = r.key
        loop
            outcomes[seen.nr] := case seen.fingerprint when fingerprints[seen.nr] then 'replayed' else 'key_reused' end;
            versions[seen.nr] := seen.version;
            positions[seen.nr] := seen.position;
            first_command_ids[seen.nr] := seen.command_id;
            first_stream_ids[seen.nr] := seen.stream_id;
        end loop;
    end if;

    for i in 1 .. coalesce(cardinality(event_commands), 0) loop
        c := event_commands[i];
        continue when outcomes[c] <> 'appended';
        last := last + 1;
        versions[c] := versions[c] + 1;
        positions[c] := last;
        last_hash := public.event_hash(last_hash, last, stream_ids[c], versions[c], event_ids[i], event_types[i],
            schema_versions[i], datas[i], metadatas[i], occurred_ats[i], at);
        row_of := row_of || i;
        new_version := new_version || versions[c];
        new_hash := new_hash || last_hash;
    end loop;

    if last > before then
        insert into public.events
        select before + n.nr, stream_ids[event_commands[n.i]], new_version[n.nr], event_ids[n.i], event_types[n.i],
               schema_versions[n.i], datas[n.i]::json, metadatas[n.i]::json, occurred_ats[n.i], at, new_hash[n.nr]
        from unnest(row_of) with ordinality as n (i, nr)
        order by n.nr;
        update public.log_head set position = last, hash = last_hash, recorded_at = at where only_row;
        -- A hint for readers, once a group. Readers also poll.
        perform pg_notify('events', last::text);
    end if;

    if keys is not null then
        insert into public.idempotency_keys
        select r.key, fingerprints[r.nr], command_ids[r.nr], stream_ids[r.nr], versions[r.nr], positions[r.nr], at
        from unnest(keys) with ordinality as r (key, nr)
        where r.key is not null and outcomes[r.nr] = 'appended';
    end if;
end
$$;
revoke all on function append_group from public;
grant execute on function append_group to orders_command;
