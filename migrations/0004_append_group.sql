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
-- its expected versions are checked, and its key is stored.
--
-- The group is processed in its order: the events of one command count for the expected versions of the next. A command
-- that brings events for a stream and is not appended makes every later command of the group that names this stream a
-- conflict: it may have been decided on those events, although another command has since given the stream the version
-- that it expects.
--
-- Keys must be distinct within one call; a caller that breaks this gets unique_violation and appends nothing.
--
-- Returns one row of arrays. Most groups name each stream once and repeat no key; they take a shorter path (decision 30).
create function append_group(
    -- one element per stream that the group names; the owner counts where the group begins the stream
    stream_ids text[], stream_owners text[],
    -- one element per command; an array of which all elements are null may be null
    command_ids uuid[], keys text[], fingerprints bytea[],
    known_log_ids uuid[],      -- the id of the log that it was decided under; null where the command service knows none yet
    -- one element per stream of a command, in the order of the commands, the command's own stream first; null where the
    -- first command names the first stream alone, the second the second, …
    named_commands integer[],  -- index of the command; null where each names one stream
    named_streams integer[],   -- index into stream_ids; null where each stream is named once
    expected_versions integer[],
    -- one element per event, in the order of the streams of the commands; event_named is the index of that stream
    event_named integer[], event_ids uuid[], event_types text[], schema_versions integer[],
    datas text[], metadatas text[], occurred_ats timestamptz[],
    -- one element per stream that a command expects to have no event, apart from those above; no command of the group
    -- brings events for one. absent_commands is the index of the command.
    absent_streams text[], absent_commands integer[],
    out log_id uuid,
    -- one element per command
    out outcomes text[], out versions integer[], out positions bigint[],
    -- null where no key was seen, else the ids of the first acknowledgement of each command whose key was
    out first_command_ids uuid[], out first_stream_ids text[]
)
language plpgsql
security definer
set search_path = pg_catalog, pg_temp
set enable_seqscan = off  -- a plan cached while the tables were still empty must not scan them once they are not
set plan_cache_mode = force_generic_plan  -- else every group is planned anew, for as long as the first ones were small
as $$
declare
    at                timestamptz;
    last              bigint;     -- the last position, …
    last_hash         bytea;      -- … and its event's hash
    before            bigint;     -- the last position before this group
    seen              record;
    owners            text[];     -- of each stream
    mistaken          integer[] := '{}';  -- commands that expect a stream to be absent that is there
    alone             boolean;    -- whether each command names a stream of its own, and no key was seen
    c                 integer;
    s                 integer;
    -- the appended events: index into the event arrays, and what the log adds to each
    new_event         integer[] := '{}';
    new_version       integer[] := '{}';
    new_hash          bytea[]   := '{}';
    -- where the commands are not alone: what becomes of them, …
    command_outcomes  text[];
    command_versions  integer[];
    command_positions bigint[];
    own_streams       integer[];
    -- … the streams and the end of the log after the commands so far, …
    stream_versions   integer[];
    stream_positions  bigint[];
    discarded         boolean[];  -- whether a command that is not appended brought events for the stream
    end_of_log        bigint;
    -- … and the place in the arrays
    named             integer   := 1;
    event             integer   := 1;
    first_named       integer;
    as_expected       boolean;
begin
    -- 4 MiB of data and 64 KiB of metadata an event. Smaller groups are not searched.
    if (pg_column_size(datas) > 4194304 and exists (select from unnest(datas) d where octet_length(d) > 4194304))
       or (pg_column_size(metadatas) > 65536 and exists (select from unnest(metadatas) m where octet_length(m) > 65536))
    then
        raise exception 'an event has more than 4 MiB of data, or more than 64 KiB of metadata' using errcode = 'check_violation';
    end if;

    -- Appends queue for this lock, so positions become visible in the order in which they are assigned. The statements
    -- below take their snapshots while this function holds it, and so see every earlier append.
    select h.log_id, h.position, h.position, h.hash, greatest(clock_timestamp(), h.recorded_at)
    into strict log_id, before, last, last_hash, at
    from public.log_head h where h.only_row for update;

    if absent_streams is not null then
        select coalesce(array_agg(a.command), '{}') into mistaken
        from unnest(absent_streams, absent_commands) as a (stream_id, command)
        where (select e.version from public.events e where e.stream_id = a.stream_id order by e.version limit 1) = 1;
    end if;

    -- Of each stream, and so of each command if they are alone.
    select array_agg(case when coalesce(v.version, 0) = expected_versions[r.nr]
                               and coalesce(known_log_ids[r.nr], append_group.log_id) = append_group.log_id
                               and r.nr <> all (mistaken)
                          then 'appended' else 'conflict' end order by r.nr),
           array_agg(coalesce(v.version, 0) order by r.nr),
           array_agg(coalesce(v.position, 0) order by r.nr),
           array_agg(case when v.version is null then stream_owners[r.nr] else v.owner end order by r.nr)
    into outcomes, versions, positions, owners
    from unnest(stream_ids) with ordinality as r (stream_id, nr)
    left join lateral (select e.version, e.position, e.owner from public.events e where e.stream_id = r.stream_id
                       order by e.version desc limit 1) v on true;

    if keys is not null then
        -- By unnest(), from which PostgreSQL expects ten rows: from generate_series() it expects a thousand, and would read
        -- every key that there is.
        for seen in
            select r.nr, k.* from unnest(keys) with ordinality as r (key, nr)
            join public.idempotency_keys k on k.key = r.key
        loop
            if first_command_ids is null then
                first_command_ids := array_fill(null::uuid, array[cardinality(command_ids)]);
                first_stream_ids := array_fill(null::text, array[cardinality(command_ids)]);
            end if;
            first_command_ids[seen.nr] := seen.command_id;
            first_stream_ids[seen.nr] := seen.stream_id;
            command_outcomes[seen.nr] :=
                case seen.fingerprint when fingerprints[seen.nr] then 'replayed' else 'key_reused' end;
            command_versions[seen.nr] := seen.version;
            command_positions[seen.nr] := seen.position;
        end loop;
    end if;

    alone := named_commands is null and named_streams is null and command_outcomes is null;
    if not alone then
        stream_versions := versions;
        stream_positions := positions;
        end_of_log := last;
        for c in 1 .. cardinality(command_ids) loop
            as_expected := command_outcomes[c] is null and coalesce(known_log_ids[c], log_id) = log_id
                           and c <> all (mistaken);
            first_named := named;
            while coalesce(named_commands[named], named) = c loop
                s := coalesce(named_streams[named], named);
                as_expected := as_expected and stream_versions[s] = expected_versions[named] and discarded[s] is null;
                named := named + 1;
            end loop;

            own_streams[c] := coalesce(named_streams[first_named], first_named);
            if command_outcomes[c] is null and not as_expected then
                command_outcomes[c] := 'conflict';
                command_versions[c] := stream_versions[own_streams[c]];
                command_positions[c] := stream_positions[own_streams[c]];
            end if;

            for n in first_named .. named - 1 loop
                s := coalesce(named_streams[n], n);
                while event_named[event] = n loop
                    if as_expected then
                        end_of_log := end_of_log + 1;
                        stream_versions[s] := stream_versions[s] + 1;
                        stream_positions[s] := end_of_log;
                        command_positions[c] := end_of_log;
                    else
                        discarded[s] := true;
                    end if;
                    event := event + 1;
                end loop;
            end loop;

            if as_expected then
                command_outcomes[c] := 'appended';
                command_versions[c] := stream_versions[own_streams[c]];
                command_positions[c] := coalesce(command_positions[c], stream_positions[own_streams[c]]);
            end if;
        end loop;
        outcomes := command_outcomes;
    end if;

    for i in 1 .. coalesce(cardinality(event_named), 0) loop
        c := event_named[i];
        s := c;
        if not alone then
            c := coalesce(named_commands[s], s);
            s := coalesce(named_streams[s], s);
        end if;
        continue when outcomes[c] <> 'appended';
        last := last + 1;
        versions[s] := versions[s] + 1;
        positions[s] := last;
        last_hash := public.event_hash(last_hash, last, stream_ids[s], versions[s], event_ids[i], event_types[i],
            schema_versions[i], datas[i], metadatas[i], occurred_ats[i], at);
        new_event := new_event || i;
        new_version := new_version || versions[s];
        new_hash := new_hash || last_hash;
    end loop;
    if not alone then
        versions := command_versions;
        positions := command_positions;
    end if;

    if last > before then
        insert into public.events
        select before + n.nr, stream_ids[coalesce(named_streams[event_named[n.i]], event_named[n.i])], new_version[n.nr],
               event_ids[n.i], event_types[n.i], schema_versions[n.i], datas[n.i]::json, metadatas[n.i]::json,
               occurred_ats[n.i], at, new_hash[n.nr], owners[coalesce(named_streams[event_named[n.i]], event_named[n.i])]
        from unnest(new_event) with ordinality as n (i, nr)
        order by n.nr;
        update public.log_head set position = last, hash = last_hash, recorded_at = at where only_row;
        -- A hint for readers, once a group; they also poll. A full queue of notifications would fail the transaction, so
        -- there are no hints while the queue is half full. log_blockers() names the sessions that fill it.
        if pg_notification_queue_usage() < 0.5 then
            perform pg_notify('events', last::text);
        end if;
    end if;

    if keys is not null then
        insert into public.idempotency_keys
        select r.key, fingerprints[r.nr], command_ids[r.nr], stream_ids[coalesce(own_streams[r.nr], r.nr)],
               versions[r.nr], positions[r.nr], at
        from unnest(keys) with ordinality as r (key, nr)
        where r.key is not null and outcomes[r.nr] = 'appended';
    end if;
end
$$;
revoke all on function append_group from public;
grant execute on function append_group to orders_command;
