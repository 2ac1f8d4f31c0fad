set local role orders_owner;

-- The only way into the log. Takes a group of commands, so that many of them share one lock and one fsync. A command names
-- one or more streams, its own first, each with the version that it expects, and brings events for any of them. It is
-- appended as a whole or not at all:
--
--   appended    its events are in the log, at consecutive positions
--   conflict    one of its streams is not at the expected version, or is one of those described below, or the log has
--               another id than the command was decided under; nothing appended
--   replayed    the Idempotency-Key was seen with the same request; nothing appended; the ids, version and position are
--               those of the first acknowledgement
--   key_reused  the Idempotency-Key was seen with another request; nothing appended
--
-- The answered version is that of the command's own stream, and the position is that of the command's last event; where it
-- appended none, of the last event of its own stream. A command may come without events (it changed nothing): then only
-- its expected versions are checked, and its key is kept.
--
-- The group is processed in its order: the events of one command count for the expected versions of the next. A command
-- that brings events for a stream and is not appended makes every later command of the group that names this stream a
-- conflict: it may have been decided on those events, although another command has since given the stream the version
-- that it expects.
--
-- Keys must be distinct within one call; a caller that breaks this gets unique_violation and appends nothing.
--
-- Returns one row of arrays, and skips what concerns keys where there are none: both save time (decision 23).
create function append_group(
    -- one element per stream that the group names
    stream_ids text[],
    -- one element per command; an array of which all elements are null may be null
    command_ids uuid[], keys text[], fingerprints bytea[],
    known_log_ids uuid[],      -- the id of the log that it was decided under; null where the command service knows none yet
    stream_counts integer[],   -- how many streams it names; null where every command names one
    -- one element per stream of a command, its own first
    streams integer[],         -- 1-based index into stream_ids; null where the first is the first, the second the second, …
    expected_versions integer[], event_counts integer[],
    -- one element per event, in this order
    event_ids uuid[], event_types text[], schema_versions integer[],
    datas text[], metadatas text[], occurred_ats timestamptz[],
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
    at             timestamptz;
    last           bigint;              -- the last position, …
    last_hash      bytea;               -- … and its event's hash
    before         bigint;              -- the last position before this group
    last_versions  integer[];           -- of each stream, …
    last_positions bigint[];            -- … and of its last event
    discarded      boolean[];           -- of each stream: whether an earlier command of the group failed to append to it
    seen           record;
    own            integer;             -- the command's own stream
    s              integer;
    first_named    integer;             -- the command's streams: from here …
    last_named     integer   := 0;      -- … to here
    last_event     integer   := 0;      -- of the commands so far: index into the event arrays
    new_event      integer[] := '{}';   -- the appended events: the same index, …
    new_stream     integer[] := '{}';   -- … of the stream, …
    new_version    integer[] := '{}';   -- … and what the log adds to each
    new_hash       bytea[]   := '{}';
begin
    -- Appends queue for this lock, so positions become visible in the order in which they are assigned. The statements
    -- below take their snapshots while this function holds it, and so see every earlier append.
    select h.log_id, h.position, h.position, h.hash, greatest(clock_timestamp(), h.recorded_at)
    into strict log_id, before, last, last_hash, at
    from public.log_head h where h.only_row for update;

    select array_agg(coalesce(v.version, 0) order by r.nr), array_agg(coalesce(v.position, 0) order by r.nr)
    into last_versions, last_positions
    from unnest(stream_ids) with ordinality as r (stream_id, nr)
    left join lateral (select e.version, e.position from public.events e where e.stream_id = r.stream_id
                       order by e.version desc limit 1) v on true;

    if keys is not null then
        -- By unnest(), from which PostgreSQL expects ten rows: from generate_series() it expects a thousand, and would read
        -- every key that there is.
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

    for c in 1 .. cardinality(command_ids) loop
        first_named := last_named + 1;
        last_named := last_named + coalesce(stream_counts[c], 1);
        own := coalesce(streams[first_named], first_named);

        if outcomes[c] is null then
            outcomes[c] := case when known_log_ids[c] <> log_id then 'conflict' else 'appended' end;
            for n in first_named .. last_named loop
                s := coalesce(streams[n], n);
                if last_versions[s] <> expected_versions[n] or discarded[s] then
                    outcomes[c] := 'conflict';
                end if;
            end loop;
        end if;

        if outcomes[c] = 'appended' then
            positions[c] := last;
            for n in first_named .. last_named loop
                s := coalesce(streams[n], n);
                for i in last_event + 1 .. last_event + event_counts[n] loop
                    last := last + 1;
                    last_versions[s] := last_versions[s] + 1;
                    last_hash := public.event_hash(last_hash, last, stream_ids[s], last_versions[s], event_ids[i],
                        event_types[i], schema_versions[i], datas[i], metadatas[i], occurred_ats[i], at);
                    new_event := new_event || i;
                    new_stream := new_stream || s;
                    new_version := new_version || last_versions[s];
                    new_hash := new_hash || last_hash;
                    last_positions[s] := last;
                end loop;
                last_event := last_event + event_counts[n];
            end loop;
            versions[c] := last_versions[own];
            positions[c] := case when last > positions[c] then last else last_positions[own] end;
        else
            for n in first_named .. last_named loop
                if event_counts[n] > 0 then
                    discarded[coalesce(streams[n], n)] := true;
                    last_event := last_event + event_counts[n];
                end if;
            end loop;
            if outcomes[c] = 'conflict' then
                versions[c] := last_versions[own];
                positions[c] := last_positions[own];
            end if;
        end if;

        if keys is not null and outcomes[c] in ('appended', 'conflict') then
            first_command_ids[c] := command_ids[c];
            first_stream_ids[c] := stream_ids[own];
        end if;
    end loop;

    if last > before then
        insert into public.events
        select before + n.nr, stream_ids[new_stream[n.nr]], new_version[n.nr], event_ids[n.i], event_types[n.i],
               schema_versions[n.i], datas[n.i]::json, metadatas[n.i]::json, occurred_ats[n.i], at, new_hash[n.nr]
        from unnest(new_event) with ordinality as n (i, nr)
        order by n.nr;
        update public.log_head set position = last, hash = last_hash, recorded_at = at where only_row;
        -- A hint for readers, once a group. Readers also poll.
        perform pg_notify('events', last::text);
    end if;

    if keys is not null then
        insert into public.idempotency_keys
        select r.key, fingerprints[r.nr], command_ids[r.nr], first_stream_ids[r.nr], versions[r.nr], positions[r.nr], at
        from unnest(keys) with ordinality as r (key, nr)
        where r.key is not null and outcomes[r.nr] = 'appended';
    end if;
end
$$;
revoke all on function append_group from public;
grant execute on function append_group to orders_command;
