-- The event log: the only truth. Everything else is derived from it and can be thrown away.

create table events (
    position       bigint      primary key,
    stream_id      text        not null,
    version        integer     not null check (version > 0),
    event_id       uuid        not null unique,
    event_type     text        not null,
    schema_version integer     not null check (schema_version > 0),
    -- `json`, not `jsonb`: the text is stored verbatim, so that anyone can recompute the hash.
    data           json        not null,
    metadata       json        not null,
    occurred_at    timestamptz not null,
    recorded_at    timestamptz not null,
    hash           bytea       not null check (octet_length(hash) = 32),
    unique (stream_id, version)
);

comment on column events.position    is 'global order: dense, 1, 2, 3 …, visible in commit order';
comment on column events.version     is 'order in the stream: 1, 2, 3 … without gaps';
comment on column events.occurred_at is 'business time, given by the client or the time of the command';
comment on column events.recorded_at is 'store time, never decreasing with position';
comment on column events.hash        is 'SHA-256 over the previous hash and every stored field; see event_hash()';

-- One row: the end of the log. Appends lock it, so positions are handed out in commit order.
create table log_head (
    only_row    boolean     primary key default true check (only_row),
    log_id      uuid        not null,
    position    bigint      not null,
    hash        bytea       not null,
    recorded_at timestamptz not null
) with (fillfactor = 10);  -- room for HOT updates: this row is rewritten by every group of commands

-- The first hash follows from the log's identity, so that two logs never share a chain.
insert into log_head (log_id, position, hash, recorded_at)
select id, 0, sha256(uuid_send(id)), '-infinity'
from (select gen_random_uuid() as id) as fresh;

create table idempotency_keys (
    key         text        primary key check (octet_length(key) between 1 and 255),
    fingerprint bytea       not null,
    command_id  uuid        not null,
    stream_id   text        not null,
    version     integer     not null,
    position    bigint      not null,
    recorded_at timestamptz not null
);
create index idempotency_keys_by_age on idempotency_keys (recorded_at);

-- History is not rewritten, not even by the owner. ENABLE ALWAYS: also where session_replication_role = replica.
create function refuse_rewriting_history() returns trigger language plpgsql as $$
begin
    raise exception 'the event log is append-only: % refused', tg_op using errcode = 'insufficient_privilege';
end
$$;

create trigger events_are_immutable before update or delete on events
    for each row execute function refuse_rewriting_history();
create trigger events_are_not_truncated before truncate on events
    for each statement execute function refuse_rewriting_history();
alter table events enable always trigger events_are_immutable;
alter table events enable always trigger events_are_not_truncated;
