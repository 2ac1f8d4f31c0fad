set local role orders_owner;

-- States of aggregates, so that loading a long stream need not begin at its first event. Disposable: the log has it all.
-- One row a stream and shape of state: during a deploy, old and new programs each keep their own. The command service
-- alone reads and writes them, and authenticates them with a key that the database does not hold: commands are decided on
-- these states.
create table snapshots (
    stream_id   text        not null,
    fingerprint bytea       not null,
    version     integer     not null check (version > 0),
    position    bigint      not null,
    occurred_at timestamptz not null,
    taken_at    timestamptz not null,
    state       json        not null,
    mac         bytea       not null check (octet_length(mac) = 32),
    primary key (stream_id, fingerprint)
);
comment on column snapshots.fingerprint is 'of the shape of the state and the key; a program reads only its own';
comment on column snapshots.position    is 'of the last event of the state';
comment on column snapshots.occurred_at is 'of the last event of the state';
comment on column snapshots.mac         is 'HMAC-SHA-256 over the row but for taken_at: shared/eventstore/snapshots.py';

-- The position up to which the compactor has processed the log.
create table snapshot_compaction (
    only_row boolean primary key default true check (only_row),
    position bigint  not null
);
insert into snapshot_compaction (position) values (0);

grant select on snapshots, snapshot_compaction to orders_command;

-- Saves the state unless a later one is there. Only of an event that the log has: a service may still have cached the
-- state of events that a restored log has lost.
create function save_snapshot(
    stream_id text, fingerprint bytea, version integer, "position" bigint, occurred_at timestamptz, state text,
    mac bytea
) returns void
language sql
security definer
set search_path = pg_catalog, pg_temp
begin atomic
    insert into public.snapshots as saved (stream_id, fingerprint, version, "position", occurred_at, taken_at, state, mac)
    select e.stream_id, save_snapshot.fingerprint, e.version, e."position", save_snapshot.occurred_at,
           clock_timestamp(), save_snapshot.state::json, save_snapshot.mac
    from public.events e
    where e.stream_id = save_snapshot.stream_id and e.version = save_snapshot.version
      and e."position" = save_snapshot."position"
    on conflict on constraint snapshots_pkey do update
    set version = excluded.version, "position" = excluded."position", occurred_at = excluded.occurred_at,
        taken_at = excluded.taken_at, state = excluded.state, mac = excluded.mac
    where saved.version < excluded.version;
end;
revoke all on function save_snapshot from public;
grant execute on function save_snapshot to orders_command;

-- Records that the compactor has processed the log up to a position; never goes back.
create function finish_compaction(up_to bigint) returns void
language sql
security definer
set search_path = pg_catalog, pg_temp
begin atomic
    update public.snapshot_compaction set "position" = greatest("position", up_to);
end;
revoke all on function finish_compaction from public;
grant execute on function finish_compaction to orders_command;

-- Deletes the snapshots of one category of streams (the part of their names before the first '-') that are of another
-- shape than its present one and older than the given age; returns how many.
create function delete_stale_snapshots(category text, fingerprint bytea, older_than interval) returns integer
language sql
security definer
set search_path = pg_catalog, pg_temp
begin atomic
    with deleted as (
        delete from public.snapshots s
        where split_part(s.stream_id, '-', 1) = delete_stale_snapshots.category
          and s.fingerprint <> delete_stale_snapshots.fingerprint and s.taken_at < clock_timestamp() - older_than
        returning 1
    )
    select count(*)::integer from deleted;
end;
revoke all on function delete_stale_snapshots from public;
grant execute on function delete_stale_snapshots to orders_command;
