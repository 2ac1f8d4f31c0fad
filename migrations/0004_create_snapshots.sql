-- Folded states, so that loading a long stream need not begin at its first event. Disposable: the log has it all.
-- One row a stream and shape of state: during a deploy, old and new programs each keep their own.
create table snapshots (
    stream_id   text        not null,
    fingerprint bytea       not null,
    version     integer     not null check (version > 0),
    position    bigint      not null,
    occurred_at timestamptz not null,
    taken_at    timestamptz not null,
    state       json        not null,
    primary key (stream_id, fingerprint)
);
comment on column snapshots.fingerprint is 'of the shape of the state; a program reads only its own';
comment on column snapshots.position    is 'of the last event folded in';
comment on column snapshots.occurred_at is 'of the last event folded in';

-- How far the background compactor has looked through the log.
create table snapshot_compaction (
    only_row boolean primary key default true check (only_row),
    position bigint  not null
);
insert into snapshot_compaction (position) values (0);

-- Keeps the snapshot with the highest version, whoever comes last.
create function save_snapshot(
    stream_id text, fingerprint bytea, version integer, "position" bigint, occurred_at timestamptz, state text
) returns void
language sql
security definer
set search_path = pg_catalog, pg_temp
begin atomic
    insert into public.snapshots as kept (stream_id, fingerprint, version, "position", occurred_at, taken_at, state)
    values (save_snapshot.stream_id, save_snapshot.fingerprint, save_snapshot.version, save_snapshot."position",
            save_snapshot.occurred_at, clock_timestamp(), save_snapshot.state::json)
    on conflict on constraint snapshots_pkey do update
    set version = excluded.version, "position" = excluded."position", occurred_at = excluded.occurred_at,
        taken_at = excluded.taken_at, state = excluded.state
    where kept.version < excluded.version;
end;
revoke all on function save_snapshot from public;

-- Notes that every stream up to a position has been looked at, and forgets snapshots of shapes long out of use.
create function finish_compaction(up_to bigint, fingerprint bytea, keep interval) returns integer
language sql
security definer
set search_path = pg_catalog, pg_temp
begin atomic
    update public.snapshot_compaction set "position" = greatest("position", up_to);
    with gone as (
        delete from public.snapshots s
        where s.fingerprint <> finish_compaction.fingerprint and s.taken_at < clock_timestamp() - keep
        returning 1
    )
    select count(*)::integer from gone;
end;
revoke all on function finish_compaction from public;
