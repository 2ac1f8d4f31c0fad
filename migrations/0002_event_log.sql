set local role orders_owner;

-- The event log: the only truth. Everything else is derived from it and can be built again. The checks know no aggregate:
-- they bound what readers of the log have to expect, also of a program that has stolen the command service's credentials.
-- All together they take 5 us an event, 8 % of the server's time for an append in groups of 32; one that counts, such as
-- '.{1,128}', would take more than everything else.

create table events (
    position       bigint      primary key,
    -- <category>-<id>, in printable ASCII, the first letter a small one
    stream_id      text        not null check (octet_length(stream_id) <= 200 and stream_id like '_%-_%'
                                               and stream_id collate "C" between 'a' and '{'
                                               and stream_id !~ '[^ -~]'),
    version        integer     not null check (version > 0),
    event_id       uuid        not null unique,
    event_type     text        not null check (octet_length(event_type) <= 64 and event_type collate "C" between 'A' and '['),
    schema_version integer     not null check (schema_version between 1 and 1000),
    -- `json`, not `jsonb`: the text is stored verbatim, so that anyone can recompute the hash.
    -- append_group bounds its size.
    data           json        not null,
    metadata       json        not null,
    -- Beyond these years no driver reads it; a clock may be wrong by a day.
    occurred_at    timestamptz not null check (occurred_at > '0001-01-01 00:00:00+00'
                                               and occurred_at - recorded_at <= interval '1 day'),
    recorded_at    timestamptz not null,
    hash           bytea       not null check (octet_length(hash) = 32),
    owner          text        collate "C" check (octet_length(owner) between 1 and 256),
    unique (stream_id, version)
);
create index events_by_owner on events (owner, position) where owner is not null;
comment on column events.position    is 'global order: dense, 1, 2, 3 …, visible in commit order';
comment on column events.version     is 'order in the stream: 1, 2, 3 … without gaps';
comment on column events.occurred_at is 'business time, given by the client or the time of the command';
comment on column events.recorded_at is 'store time, never decreasing with position';
comment on column events.hash        is 'SHA-256 over the previous hash and every stored field; see event_hash()';
comment on column events.owner       is 'whose stream it is, as its first event says; follows from that event, so not hashed';

-- One row: the end of the log. Appends lock it, so positions are assigned in commit order.
create table log_head (
    only_row    boolean     primary key default true check (only_row),
    log_id      uuid        not null,
    position    bigint      not null,
    hash        bytea       not null,
    recorded_at timestamptz not null
) with (fillfactor = 10);  -- space for HOT updates: every group of commands rewrites this row

-- The first hash follows from the log's id, so that two logs never share a chain.
insert into log_head (log_id, position, hash, recorded_at)
select id, 0, sha256(uuid_send(id)), '-infinity'
from (select gen_random_uuid() as id) as fresh;

grant select on events, log_head to orders_command, orders_projector, orders_auditor;

-- History is not rewritten, not even by the owner. ENABLE ALWAYS: also where session_replication_role = replica.
create function refuse_rewriting_history() returns trigger language plpgsql as $$
begin
    raise exception 'the event log is append-only: % refused', tg_op using errcode = 'insufficient_privilege';
end
$$;
revoke all on function refuse_rewriting_history from public;

create trigger events_are_immutable before update or delete on events
    for each row execute function refuse_rewriting_history();
create trigger events_are_not_truncated before truncate on events
    for each statement execute function refuse_rewriting_history();
alter table events enable always trigger events_are_immutable;
alter table events enable always trigger events_are_not_truncated;

-- The hash of one event: SHA-256 over the previous hash and the event's columns in the table's order, each as its length
-- (int4) and its value in PostgreSQL's binary format, just as COPY ... (FORMAT binary) writes them. So no two events
-- share an encoding, and a verifier hashes what it is sent without decoding it. Text is UTF-8 whatever the client says.
--
-- Stable, because convert_to() is: PostgreSQL does not inline a function that claims to be immutable and is not, and each
-- event would pay for a query of its own.
create function event_hash(
    previous bytea, "position" bigint, stream_id text, version integer, event_id uuid, event_type text,
    schema_version integer, data text, metadata text, occurred_at timestamptz, recorded_at timestamptz
) returns bytea language sql stable parallel safe
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
revoke all on function event_hash from public;
grant execute on function event_hash to orders_auditor;

-- Pages of the log and of one stream: at most `most` events after a position or version, in order, and none after those
-- whose JSON reaches `max_bytes`. They stop reading there; a window function would read the whole rest of the page.
create function events_after(after bigint, most integer, max_bytes bigint) returns setof events
language plpgsql
stable
set search_path = pg_catalog, pg_temp
set enable_seqscan = off  -- a plan cached while the log was still empty must not scan it once it is not
as $$
declare
    event public.events;
    bytes bigint := 0;
begin
    for event in select * from public.events e where e.position > after order by e.position limit most loop
        return next event;
        bytes := bytes + octet_length(event.data::text) + octet_length(event.metadata::text);
        exit when bytes >= max_bytes;
    end loop;
end
$$;

create function stream_after(stream text, after integer, most integer, max_bytes bigint) returns setof events
language plpgsql
stable
set search_path = pg_catalog, pg_temp
set enable_seqscan = off
as $$
declare
    event public.events;
    bytes bigint := 0;
begin
    for event in
        select * from public.events e where e.stream_id = stream and e.version > after order by e.version limit most
    loop
        return next event;
        bytes := bytes + octet_length(event.data::text) + octet_length(event.metadata::text);
        exit when bytes >= max_bytes;
    end loop;
end
$$;

revoke all on function events_after, stream_after from public;
grant execute on function events_after, stream_after to orders_command, orders_projector, orders_auditor;
